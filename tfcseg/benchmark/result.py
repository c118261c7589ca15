"""Result of a benchmark and its JSON. Times in milliseconds per frame, shares in percent; None: not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfcseg.benchmark.timing import Spread
from tfcseg.report.conditions import ModelConditions

KIND = "bench"

RATIOS = (("image", "plain"), ("tfc", "plain"), ("tfc", "image"))
"""Speed of the first over speed of the second, where both were measured."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of one contender: ``fps`` is that of the median time."""

    fps: float
    ms_per_frame: Spread
    frames: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Most memory that a contender's process held while it made its files; ffmpeg's own processes not included."""

    peak_mib: float
    before_mib: float
    """Held before the first frame: Python, its packages, the model."""
    gpu_peak_mib: float | None
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestConditions(ModelConditions):
    """What a benchmark and its scaling say of the contest."""

    random_weights: bool
    embed_dim: int
    input: Mapping[str, Any]
    resolution: Mapping[str, tuple[int, int]]  # (height, width) of the source and of the network's input
    options: Mapping[str, Any]
    plain: Mapping[str, Any]  # what contender (a) is
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(ContestConditions):
    """Everything that a bench-*.json says; parts that were not measured are empty."""

    kind: str = KIND
    model_only: Mapping[str, Speed] = field(default_factory=dict)
    end_to_end: Mapping[str, Speed] = field(default_factory=dict)
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)  # "image|tfc" -> percentage of all pixels
    updated_fraction: float | None = None
    breakdown: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)
    network_share: Mapping[str, float] = field(default_factory=dict)  # time of the network alone to that end to end
    costs: Mapping[str, float] = field(default_factory=dict)  # share of the time end to end
    limits: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, Memory] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def speed(ms_per_frame: Spread, frames: int) -> Speed:
    """Speed from the time that a frame takes."""
    return Speed(1000 / ms_per_frame.median, ms_per_frame, frames)


def speed_ratios(speeds: Mapping[str, Speed]) -> dict[str, float]:
    """``tfc/plain`` -> how many times faster the first is than the second, for the pairs of ``RATIOS``."""
    pairs = [pair for pair in RATIOS if speeds.keys() >= set(pair)]
    return {f"{first}/{second}": speeds[first].fps / speeds[second].fps for first, second in pairs}


def network_shares(alone: Mapping[str, Speed], whole: Mapping[str, Speed]) -> dict[str, float]:
    """Percentage of a whole run that the network alone takes: near 100, nothing else matters; far below, it waits."""
    return {name: 100 * whole[name].fps / alone[name].fps for name in alone if name in whole}
