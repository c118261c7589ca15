"""Result of a comparison and its file compare.json. Percentages are 0 to 100; None: not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from tfcseg.comparison.flops import FLOPS_FACTS, count_gflops
from tfcseg.comparison.plan import Plan, Run, titles_of
from tfcseg.inference.network_input import network_size
from tfcseg.media.frames import Image
from tfcseg.report.html import shown_number
from tfcseg.report.schema import ModelConditions, model_conditions
from tfcseg.weights.loading import LoadedModel

COMPARE_JSON, COMPARE_HTML = "compare.json", "compare.html"

Numbers: TypeAlias = Mapping[str, float | None]
"""Values by the keys of ``METRICS``; a video has no scores, a data set no milliseconds."""


class Metric(NamedTuple):
    """A measured quantity, in the order in which tables show it."""

    key: str
    title: str
    digits: int
    is_percentage: bool
    best: Callable[[Iterable[float]], float] | None
    """``min`` or ``max``; None if modes are not ranked by it."""

    def shown(self, value: float | None) -> str:
        """``value`` for people."""
        return shown_number(value, self.digits, "%" if self.is_percentage else "")


METRICS = (
    Metric("miou", "mIoU", 2, True, max),
    Metric("miou_all", "mIoU, all classes", 2, True, max),
    Metric("wiou", "wIoU", 2, True, max),
    Metric("vc8", "VC8", 2, True, max),
    Metric("vc16", "VC16", 2, True, max),
    Metric("flow_consistency", "flow consistency", 2, True, max),
    Metric("label_change", "label change", 2, True, min),
    Metric("agreement", "same labels as {reference}", 2, True, None),
    Metric("updated_fraction", "points updated", 2, True, None),
    Metric("fps", "fps end to end", 2, False, max),
    Metric("model_fps", "fps model only", 2, False, max),
    Metric("keyframe_ms", "ms per keyframe", 1, False, min),
    Metric("non_keyframe_ms", "ms per non-keyframe", 1, False, min),
    Metric("gflops_per_frame", "GFLOPs per frame", 2, False, min),
    Metric("gflops_keyframe", "GFLOPs per keyframe", 2, False, min),
    Metric("gflops_non_keyframe", "GFLOPs per non-keyframe", 2, False, min),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A frame in which two modes differ much, and its picture."""

    frame: int
    time_s: float
    differing: float
    """Percentage of the pixels."""
    picture: str
    """Path relative to compare.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(ModelConditions):
    """Content of compare.json; ``ratio`` is of mode ``ratio_of[0]`` over mode ``ratio_of[1]``."""

    kind: str  # "video" or "vspw"
    input: Mapping[str, Any]
    options: Mapping[str, Any]
    resolution: Mapping[str, tuple[int, int]]  # (height, width) of the source and of the network's input
    modes: Mapping[str, Numbers]
    ratio_of: tuple[str, str]
    ratio: Mapping[str, float]
    agreement: Mapping[str, float] = field(default_factory=dict)  # "image|tfc" -> percentage of all pixels
    flops: Mapping[str, Any] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    is_incomplete: bool = False  # data was missing
    skipped: Mapping[str, int] = field(default_factory=dict)  # kind -> how many
    warnings: tuple[str, ...] = ()

    @property
    def titles(self) -> dict[str, str]:
        """Titles of the modes."""
        return titles_of(self.modes, self.options["baseline"])

    def rows(self) -> Iterator[tuple[Metric, str, dict[str, float | None]]]:
        """Metrics that any mode has, with their titles and the values of all modes."""
        for metric in METRICS:
            values = {mode: numbers.get(metric.key) for mode, numbers in self.modes.items()}
            if any(value is not None for value in values.values()):
                yield metric, metric.title.format(reference=self.titles[self.ratio_of[1]]), values


def common_facts(
    *,
    plan: Plan,
    model: LoadedModel,
    runs: Sequence[Run],
    numbers: Sequence[Numbers],
    samples: Sequence[Sequence[Image]],
    outputs: Mapping[str, str],
) -> dict[str, Any]:
    """Fields of `Comparison` that videos and data sets have in common.

    ``numbers`` are those of the baseline, if there is one, and of ``runs``. FLOPs are counted on ``samples``.
    """
    modes = {mode: dict(found) for mode, found in zip(plan.shown_modes, numbers, strict=True)}
    for run in runs:
        modes[run.mode] |= count_gflops(model, run.options, samples)
    reference, candidate = plan.pair
    height, width = samples[0][0].shape[:2]
    return {
        "options": plan.to_json(runs),
        "resolution": {"source": (height, width), "network": network_size((height, width), runs[0].options.size)},
        "modes": modes,
        "ratio_of": (candidate, reference),
        "ratio": _ratios(modes[candidate], modes[reference]) if candidate != reference else {},
        "flops": {**FLOPS_FACTS, "frames": sum(map(len, samples))},
        "outputs": {
            **{run.mode: run.mode for run in runs},
            **outputs,
            "page": COMPARE_HTML,
            "compare": COMPARE_JSON,
        },
        **model_conditions(model),
    }


def _ratios(candidate: Numbers, reference: Numbers) -> dict[str, float]:
    """Candidate over reference for every metric that both have; no entry where the reference is 0."""
    pairs = {metric.key: (candidate.get(metric.key), reference.get(metric.key)) for metric in METRICS}
    return {key: over / under for key, (over, under) in pairs.items() if over is not None and under}
