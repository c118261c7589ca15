"""Run the parts of a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tfcseg.benchmark.contest import Contest, contest_facts, open_contest
from tfcseg.benchmark.memory import measure_memory
from tfcseg.benchmark.plain import has_transformers
from tfcseg.benchmark.request import PARTS, Request
from tfcseg.benchmark.speeds import measure_end_to_end, measure_model_only
from tfcseg.benchmark.timing import Benchmark, OnStep
from tfcseg.options import OnProgress

_MEASURE: dict[str, Callable[[Contest, OnStep], dict[str, Any]]] = {
    "model": measure_model_only,
    "end-to-end": measure_end_to_end,
    "memory": measure_memory,
}


def measure(request: Request, on_progress: OnProgress = lambda part, done, total: None) -> Benchmark:
    """Measure the ``parts`` of ``request``; UsageError, InputError or WeightsError before the first measurement."""
    with open_contest(request) as contest:
        found: dict[str, Any] = {}
        ratios: dict[str, Any] = {}
        for part in (part for part in PARTS if part in request.parts):
            found |= _MEASURE[part](contest, partial(on_progress, part))
            ratios |= found.pop("ratios", {})
        return Benchmark(**contest_facts(contest), **found, ratios=ratios, left_out=_left_out(request))


def _left_out(request: Request) -> tuple[str, ...]:
    left_out = [f"not asked for: {part}" for part in PARTS if part not in request.parts]
    if not has_transformers():
        left_out.append("plain: transformers is not installed (pip install transformers)")
    return (*left_out, "loading the model", "memory of ffmpeg's processes")
