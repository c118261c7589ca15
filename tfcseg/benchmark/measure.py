"""Run the parts of a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tfcseg.benchmark.contest import PLAIN, Contest, contest_facts, open_contest
from tfcseg.benchmark.end_to_end import measure_end_to_end
from tfcseg.benchmark.limits import measure_limits, measure_surroundings
from tfcseg.benchmark.memory import measure_memory
from tfcseg.benchmark.model_only import measure_breakdown, measure_model_only
from tfcseg.benchmark.plain import has_transformers
from tfcseg.benchmark.request import PARTS, Request
from tfcseg.benchmark.timing import Benchmark, OnStep, network_shares

SURROUNDINGS = "around the network"


def measure(request: Request, on_step: OnStep = lambda part, done, total: None) -> Benchmark:
    """Measure the ``parts`` of ``request``; UsageError, InputError or WeightsError before the first measurement."""
    with open_contest(request) as contest:
        found: dict[str, Any] = {"ratios": {}}
        for part in (part for part in PARTS if part in request.parts):
            for name, value in _MEASURE[part](contest, partial(on_step, part)).items():
                found[name] = {**found.get(name, {}), **value} if name == "ratios" else value
        if "model_only" in found and "end_to_end" in found:
            found["network_share"] = network_shares(found["model_only"], found["end_to_end"])
        if "limits" in found:
            found["limits"] |= _shares_of_ceiling(found)
        return Benchmark(**contest_facts(contest), **found, left_out=_left_out(request))


def _breakdown(contest: Contest, on_step: Callable[[int, int], None]) -> dict[str, Any]:
    steps = measure_breakdown(contest, on_step)
    return {"breakdown": {**steps, SURROUNDINGS: measure_surroundings(contest, on_step)}}


_MEASURE: dict[str, Callable[[Contest, Callable[[int, int], None]], dict[str, Any]]] = {
    "model": measure_model_only,
    "end-to-end": measure_end_to_end,
    "breakdown": _breakdown,
    "limits": lambda contest, on_step: {"limits": measure_limits(contest, on_step)},
    "memory": lambda contest, on_step: {"memory": measure_memory(contest, on_step)},
}


def _shares_of_ceiling(found: dict[str, Any]) -> dict[str, Any]:
    """Our contenders' GFLOP/s without files, in percent of the matrix product's.

    Plain SegFormer is left out, since it may use another precision.
    """
    limits, speeds = found["limits"], found.get("model_only", {})
    return {
        "share_of_ceiling": {
            mode: 100 * gflops * speeds[mode].fps / limits["matrix_gflops_per_s"]
            for mode, gflops in limits["gflops_per_frame"].items()
            if mode in speeds and mode != PLAIN and gflops is not None
        }
    }


def _left_out(request: Request) -> tuple[str, ...]:
    left_out = [f"not asked for: {part}" for part in PARTS if part not in request.parts]
    if not has_transformers():
        left_out.append("plain: transformers is not installed (pip install transformers)")
    return (*left_out, "loading the model", "memory of ffmpeg's processes")
