"""The plan of a comparison, its result and compare.json. Percentages are 0 to 100; None: not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from tfcseg.comparison import DEFAULT_MODES
from tfcseg.comparison.flops import FLOPS_FACTS, count_gflops
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.groups import Group
from tfcseg.inference.intervals import run_intervals
from tfcseg.inference.network_input import network_size
from tfcseg.inference.options import check_variants, variant_options
from tfcseg.media.frames import Image
from tfcseg.model.options import MODE_VARIANTS, InferenceOptions
from tfcseg.report.html import shown_number
from tfcseg.report.schema import ModelConditions, model_conditions
from tfcseg.weights.loading import LoadedModel

MAX_SAMPLE = 32  # frames of an interval for warming up and counting FLOPs; bounds memory for any interval


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of the network over the data."""

    mode: str  # one of ``MODE_VARIANTS``, and the folder of its results, below the comparison's
    options: InferenceOptions

    def warm_up(self, model: LoadedModel, images: Sequence[Image]) -> None:
        """Run the network on the beginning of an interval, so that first-time costs are not measured."""
        first = images[: min(MAX_SAMPLE, self.options.keyframe_interval)]
        for _ in run_intervals(IntervalNetwork(model, self.options), [Group(first, None)]):
            pass


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs to compare. Raises UsageError for options that make no sense."""

    modes: Sequence[str] = DEFAULT_MODES
    inference: InferenceOptions = InferenceOptions()
    """Options of all modes, except the mode itself and a correlation that its name fixes."""
    flow_consistency: bool = True  # measure flow consistency, which needs optical flow

    def __post_init__(self) -> None:
        check_variants(self.modes, self.inference)

    def runs(self, model: LoadedModel) -> list[Run]:
        """A run per mode: the reference first, the candidate last. Nothing is run twice: ``tfc-paper`` is left out if
        ``tfc`` uses the paper's correlation anyway."""
        modes = (mode for mode in MODE_VARIANTS if mode in self.modes)
        names = {variant_options(model, mode, self.inference): mode for mode in modes}
        return [Run(mode, options) for options, mode in names.items()]

    def to_json(self, runs: Sequence[Run]) -> dict[str, Any]:
        """Return what was compared, with the options that the model filled in."""
        used = asdict(runs[-1].options)
        del used["mode"]
        return {
            "modes": [run.mode for run in runs],
            **used,
            "flow_consistency": self.flow_consistency,
        }


def known_folders(folder: Path) -> list[str]:
    """Folders below ``folder`` that any earlier comparison may have made."""
    return sorted(name for name in MODE_VARIANTS if (folder / name).is_dir())


COMPARE_JSON, COMPARE_HTML = "compare.json", "compare.html"

Numbers: TypeAlias = Mapping[str, float | None]
"""Values by the keys of ``METRICS``; a video has no scores, a data set no milliseconds."""


class Metric(NamedTuple):
    """A measured quantity, in the order in which tables show it."""

    key: str
    title: str
    digits: int
    is_percentage: bool
    best: Callable[[Iterable[float]], float] | None  # ``min`` or ``max``; None if modes are not ranked by it

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
    differing: float  # percentage of the pixels
    picture: str  # path relative to compare.json


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

    def rows(self) -> Iterator[tuple[Metric, str, dict[str, float | None]]]:
        """Metrics that any mode has, with their titles and the values of all modes."""
        for metric in METRICS:
            values = {mode: numbers.get(metric.key) for mode, numbers in self.modes.items()}
            if any(value is not None for value in values.values()):
                yield metric, metric.title.format(reference=self.ratio_of[1]), values


def common_facts(
    plan: Plan,
    model: LoadedModel,
    runs: Sequence[Run],
    numbers: Sequence[dict[str, float | None]],
    *,
    samples: Sequence[Sequence[Image]],
    outputs: Mapping[str, str],
) -> dict[str, Any]:
    """Fields of `Comparison` that videos and data sets have in common; FLOPs are counted on ``samples``."""
    modes = {
        run.mode: found | count_gflops(model, run.options, samples) for run, found in zip(runs, numbers, strict=True)
    }
    reference, candidate = runs[0].mode, runs[-1].mode
    height, width = samples[0][0].shape[:2]
    return {
        "options": plan.to_json(runs),
        "resolution": {"source": (height, width), "network": network_size((height, width), runs[0].options.size)},
        "modes": modes,
        "ratio_of": (candidate, reference),
        "ratio": {
            key: over / under
            for key, over in modes[candidate].items()
            if over is not None and (under := modes[reference].get(key)) and candidate != reference
        },
        "flops": {**FLOPS_FACTS, "frames": sum(map(len, samples))},
        "outputs": {
            **{run.mode: run.mode for run in runs},
            **outputs,
            "page": COMPARE_HTML,
            "compare": COMPARE_JSON,
        },
        **model_conditions(model),
    }
