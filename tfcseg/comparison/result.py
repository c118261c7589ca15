"""Result of a comparison and its file compare.json. Percentages are 0 to 100; None: not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from tfcseg.media.source import Given, Source
from tfcseg.report import json_object, to_json, write_json
from tfcseg.report.conditions import ModelConditions

COMPARE_JSON, COMPARE_HTML = "compare.json", "compare.html"

Numbers: TypeAlias = Mapping[str, float | None]
"""Values by the keys of ``METRICS``; a video has no scores, a data set no milliseconds."""


class Metric(NamedTuple):
    """A measured quantity, in the order in which tables show it."""

    key: str
    title: str
    digits: int
    is_percentage: bool


METRICS = (
    Metric("miou", "mIoU", 2, True),
    Metric("miou_all", "mIoU, all classes", 2, True),
    Metric("wiou", "wIoU", 2, True),
    Metric("vc8", "VC8", 2, True),
    Metric("vc16", "VC16", 2, True),
    Metric("flow_consistency", "flow consistency", 2, True),
    Metric("label_change", "label change", 2, True),
    Metric("agreement", "same labels as {reference}", 2, True),
    Metric("updated_fraction", "points updated", 2, True),
    Metric("fps", "fps end to end", 2, False),
    Metric("model_fps", "fps model only", 2, False),
    Metric("keyframe_ms", "ms per keyframe", 1, False),
    Metric("non_keyframe_ms", "ms per non-keyframe", 1, False),
    Metric("gflops_per_frame", "GFLOPs per frame", 2, False),
    Metric("gflops_keyframe", "GFLOPs per keyframe", 2, False),
    Metric("gflops_non_keyframe", "GFLOPs per non-keyframe", 2, False),
)


@dataclass(frozen=True, slots=True)
class TradeOffPoint:
    """One mode at one keyframe interval: a dot of the plot."""

    mode: str
    keyframe_interval: int
    numbers: Numbers


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
    """Everything that compare.json says; ``ratio`` is of mode ``ratio_of[0]`` over mode ``ratio_of[1]``."""

    kind: str  # "video" or "vspw"
    input: Mapping[str, Any]
    options: Mapping[str, Any]
    resolution: Mapping[str, tuple[int, int]]  # (height, width) of the source and of the network's input
    modes: Mapping[str, Numbers]
    ratio_of: tuple[str, str]
    ratio: Mapping[str, float]
    agreement: Mapping[str, float] = field(default_factory=dict)  # "image|tfc" -> percentage of all pixels
    flops: Mapping[str, Any] = field(default_factory=dict)
    trade_off: tuple[TradeOffPoint, ...] = ()
    differences: tuple[Difference, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    is_incomplete: bool = False  # data was missing
    skipped: Mapping[str, int] = field(default_factory=dict)  # kind -> how many
    warnings: tuple[str, ...] = ()


def default_output(source: Given) -> Path:
    """``<name>_compare`` in the current folder."""
    return Path(f"{Source.of(source).title}_compare")


def ratios(candidate: Numbers, reference: Numbers) -> dict[str, float]:
    """Candidate over reference for every metric that both have; no entry where the reference is 0."""
    found: dict[str, float] = {}
    for metric in METRICS:
        over, under = candidate.get(metric.key), reference.get(metric.key)
        if over is not None and under:
            found[metric.key] = over / under
    return found


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Content of compare.json."""
    content = json_object(comparison)
    content["trade_off"] = [
        {"mode": point.mode, "keyframe_interval": point.keyframe_interval, **_rounded(point.numbers)}
        for point in comparison.trade_off
    ]
    return content


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write compare.json; it appears complete or not at all. OutputError if it cannot be written."""
    write_json(path, comparison_json(comparison))


def _rounded(numbers: Numbers) -> dict[str, Any]:
    return {key: to_json(value) for key, value in numbers.items()}
