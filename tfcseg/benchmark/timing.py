"""Time several contenders fairly: in turn, after a warm-up, including all work of the device."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from tfcseg.report.schema import ModelConditions

OnStep: TypeAlias = Callable[[int, int], None]
"""Called after each step with steps done, and steps in total."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of repeated measurements."""

    median: float
    low: float
    high: float
    samples: int


def spread(samples: Iterable[float]) -> Spread:
    """Median and range of at least one sample."""
    values = sorted(samples)
    return Spread(statistics.median(values), values[0], values[-1], len(values))


def alternate(
    tasks: Mapping[str, Callable[[], float]], rounds: int, *, on_step: OnStep = lambda done, total: None
) -> dict[str, list[float]]:
    """Run every task once to warm up, then ``rounds`` times in turn; returns what they measured, by task.

    Every second round is in reverse order, so that changes in the machine's speed affect all tasks equally.
    """
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    steps, done = (rounds + 1) * len(tasks), 0
    for number in range(rounds + 1):
        names = list(tasks) if number % 2 == 0 else list(tasks)[::-1]
        for name in names:
            measured = tasks[name]()
            done += 1
            on_step(done, steps)
            if number:  # round 0 is the warm-up
                samples[name].append(measured)
    return samples


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its work, which runs asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


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
    """Peak memory of a contender's process during a run, without ffmpeg's processes."""

    peak_mib: float
    before_mib: float
    """Before the first frame: Python, packages and model."""
    gpu_peak_mib: float | None
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(ModelConditions):
    """Content of a bench-*.json; parts that were not measured are empty."""

    kind: str = "bench"
    random_weights: bool
    embed_dim: int
    input: Mapping[str, Any]
    resolution: Mapping[str, tuple[int, int]]  # (height, width) of the source and of the network's input
    options: Mapping[str, Any]
    plain: Mapping[str, Any]  # facts about plain SegFormer
    rounds: int
    model_only: Mapping[str, Speed] = field(default_factory=dict)
    end_to_end: Mapping[str, Speed] = field(default_factory=dict)
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)  # "image|tfc" -> percentage of all pixels
    updated_fraction: float | None = None
    memory: Mapping[str, Memory] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def speed_ratios(speeds: Mapping[str, Speed]) -> dict[str, float]:
    """Speed of the first over that of the second, for the pairs of ``RATIOS``, as ``tfc/plain``."""
    pairs = [pair for pair in RATIOS if speeds.keys() >= set(pair)]
    return {f"{first}/{second}": speeds[first].fps / speeds[second].fps for first, second in pairs}
