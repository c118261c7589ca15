"""The plan of a comparison, its result and compare.json; arithmetic per frame, counted on real frames by PyTorch.

Percentages are 0 to 100; None: not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

import torch
from torch.utils.flop_counter import FlopCounterMode

from tfcseg.comparison import DEFAULT_MODES
from tfcseg.errors import UsageError
from tfcseg.inference.engine import FrameResult, IntervalNetwork
from tfcseg.inference.groups import Group
from tfcseg.inference.intervals import run_intervals
from tfcseg.inference.network_input import network_size
from tfcseg.inference.options import check_variants, variant_options
from tfcseg.media.frames import Image
from tfcseg.model.options import MODE_VARIANTS, InferenceOptions
from tfcseg.report.html import shown_number
from tfcseg.report.schema import ModelConditions, model_conditions
from tfcseg.weights.loading import LoadedModel

FLOPS_FACTS = {
    "counted": "convolutions and matrix products; a multiply-add counts as two",
    "not_counted": "norms, activations, resizes, similarity, the sampling of MSDA, preprocessing, label upsampling",
}
"""Meaning of the numbers, for compare.json."""


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *others: object, **named: object) -> int:
    """FLOPs of attention from shapes (B, M, N, d): scores and their product with the values."""
    batch, heads, queries, depth = query
    return 2 * batch * heads * queries * key[2] * (depth + value[3])


def _convolution_flops(
    x: torch.Size, weight: torch.Size, *others: object, out_shape: torch.Size, **named: object
) -> int:
    """FLOPs of a convolution from shapes: every output position of each picture takes all weights."""
    return 2 * out_shape[0] * math.prod(out_shape[2:]) * math.prod(weight)


def _sum_flops(rest: torch.Size, x: torch.Size, weight: torch.Size, *others: object, **named: object) -> int:
    return _convolution_flops(x, weight, out_shape=rest)


def _linear_flops(x: torch.Size, weight: torch.Size, *others: object, **named: object) -> int:
    return 2 * math.prod(x) * weight[0]


_FORMULAS = {
    getattr(namespace, name): formula
    for namespace, name, formula in (
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", _attention_flops),
        (torch.ops.mkldnn, "_convolution_pointwise", _convolution_flops),
        (torch.ops.mkldnn, "_convolution_pointwise_", _sum_flops),
        (torch.ops.mkldnn, "_linear_pointwise", _linear_flops),
    )
    if hasattr(namespace, name)  # not every PyTorch is built with oneDNN
}
"""What PyTorch's counter misses on the CPU: attention, and convolutions with an activation (model/ops/fused.py)."""


def count_gflops(
    model: LoadedModel, options: InferenceOptions, samples: Sequence[Sequence[Image]]
) -> dict[str, float | None]:
    """GFLOPs of a keyframe, of the mean frame between keyframes (None without any) and of the mean frame.

    samples: beginnings of intervals of (H, W, 3) images. The cost of sparse MSDA depends on their content: the more
    samples, and the more spread out, the closer to the mean of the video. With one side, the mean frame is that of a
    whole interval; else that of the samples, whose content determines how many keyframes there are.
    """
    network, interval = IntervalNetwork(model, options), options.keyframe_interval
    network.workers = 1  # the counter sees its own thread only
    results: list[FrameResult] = []

    def segment(images: Sequence[Image]) -> None:
        results.clear()
        for _, found in run_intervals(network, [Group(images, None)]):
            results.extend(found)

    firsts = {sample[0].shape: sample[:1] for sample in samples}  # videos of a data set may differ in size
    alone = {size: count_flops(partial(segment, first)) for size, first in firsts.items()}
    total = between = 0.0
    frames = others = 0
    for sample in samples if options.sides != "one" else [sample[:interval] for sample in samples]:
        keyframe = alone[sample[0].shape]
        spent = count_flops(partial(segment, sample)) if len(sample) > 1 else keyframe
        keyframes = sum(result.is_keyframe for result in results) if len(sample) > 1 else 1
        total, between = total + spent, between + spent - keyframes * keyframe
        frames, others = frames + len(sample), others + len(sample) - keyframes
    per_keyframe = fmean(alone[sample[0].shape] for sample in samples)
    per_other = between / others if others else None
    mean = total / frames
    if options.sides == "one" and per_other is not None:
        mean = (per_keyframe + (interval - 1) * per_other) / interval
    found = {"gflops_per_frame": mean, "gflops_keyframe": per_keyframe, "gflops_non_keyframe": per_other}
    return {name: None if flops is None else flops / 1e9 for name, flops in found.items()}


def count_flops(work: Callable[[], object]) -> float:
    """FLOPs of all that PyTorch computes while ``work`` is done, within the limits of `FLOPS_FACTS`."""
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        work()
    return float(counter.get_total_flops())


BASELINE = "baseline"  # title and folder of another program's masks, which stand for mode ``image``
MAX_SAMPLE = 32  # frames of an interval for warming up and counting FLOPs; bounds memory for any interval


def warm_up(model: LoadedModel, options: InferenceOptions, images: Sequence[Image]) -> None:
    """Run the network on the beginning of an interval, so that first-time costs are not measured."""
    first = images[: min(MAX_SAMPLE, options.keyframe_interval)]
    for _ in run_intervals(IntervalNetwork(model, options), [Group(first, None)]):
        pass


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs to compare. Raises UsageError for options that make no sense."""

    modes: Sequence[str] = DEFAULT_MODES
    baseline: str | Path | None = None  # masks of another program, which replace mode ``image``
    inference: InferenceOptions = InferenceOptions()
    """Options of all modes, except the mode itself and a correlation that its name fixes."""
    flow_consistency: bool = True  # measure flow consistency, which needs optical flow

    def __post_init__(self) -> None:
        check_variants(self.modes, self.inference)
        if self.baseline is not None and set(self.modes) == {"image"}:
            raise UsageError("the baseline replaces mode 'image'; name another mode to compare it with")

    def runs(self, model: LoadedModel) -> dict[str, InferenceOptions]:
        """Options of the run of each mode: the reference first, the candidate last. Nothing is run twice: ``tfc-paper``
        is left out if ``tfc`` uses the paper's correlation anyway."""
        replaced = () if self.baseline is None else ("image",)
        modes = (mode for mode in MODE_VARIANTS if mode in self.modes and mode not in replaced)
        names = {variant_options(model, mode, self.inference): mode for mode in modes}
        return {mode: options for options, mode in names.items()}

    def shown(self, runs: Iterable[str]) -> list[str]:
        """Modes of the result, of which ``runs`` are run: the reference first, the candidate last."""
        return [*([] if self.baseline is None else ["image"]), *runs]

    def to_json(self, runs: Mapping[str, InferenceOptions]) -> dict[str, Any]:
        """Return what was compared, with the options that the model filled in."""
        used = asdict(list(runs.values())[-1])
        del used["mode"]
        return {
            "modes": self.shown(runs),
            **used,
            "baseline": None if self.baseline is None else str(self.baseline),
            "flow_consistency": self.flow_consistency,
        }


def titles_of(modes: Iterable[str], baseline: object) -> dict[str, str]:
    """Titles of ``modes``: their names, but that of the baseline, if there is one, in place of ``image``."""
    return {mode: BASELINE if mode == "image" and baseline is not None else mode for mode in modes}


def known_folders(folder: Path) -> list[str]:
    """Folders below ``folder`` that any earlier comparison may have made."""
    return sorted(name for name in (BASELINE, *MODE_VARIANTS) if (folder / name).is_dir())


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
    """Content of compare.json; mode ``ratio_of[0]`` is compared with mode ``ratio_of[1]``."""

    kind: str  # "video" or "vspw"
    input: Mapping[str, Any]
    options: Mapping[str, Any]
    resolution: Mapping[str, tuple[int, int]]  # (height, width) of the source and of the network's input
    modes: Mapping[str, Numbers]
    ratio_of: tuple[str, str]
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
        """Metrics that any mode has, with their titles and the values of all modes. Most models update no points."""
        for metric in METRICS:
            values = {mode: numbers.get(metric.key) for mode, numbers in self.modes.items()}
            is_shown = any(values.values()) if metric.key == "updated_fraction" else {*values.values()} - {None}
            if is_shown:
                yield metric, metric.title.format(reference=self.titles[self.ratio_of[1]]), values


def common_facts(
    plan: Plan,
    model: LoadedModel,
    runs: Mapping[str, InferenceOptions],
    numbers: Sequence[dict[str, float | None]],
    *,
    samples: Sequence[Sequence[Image]],
    outputs: Mapping[str, str],
) -> dict[str, Any]:
    """Fields of `Comparison` that videos and data sets have in common. ``numbers`` are those of the baseline, if there
    is one, and of ``runs``. FLOPs are counted on ``samples``."""
    shown = plan.shown(runs)
    modes = dict(zip(shown, numbers, strict=True))
    for mode, options in runs.items():
        modes[mode] |= count_gflops(model, options, samples)
    size = samples[0][0].shape[0], samples[0][0].shape[1]
    keyframe_size = next(iter(runs.values())).keyframe_size
    return {
        "options": plan.to_json(runs),
        "resolution": {"source": size, "network": network_size(size, keyframe_size)},
        "modes": modes,
        "ratio_of": (shown[-1], shown[0]),
        "flops": {**FLOPS_FACTS, "frames": sum(map(len, samples))},
        "outputs": {**{mode: mode for mode in runs}, **outputs, "page": COMPARE_HTML, "compare": COMPARE_JSON},
        **model_conditions(model),
    }
