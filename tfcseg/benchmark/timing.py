"""Time several contenders fairly: in turn, after a warm-up, including all work of the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

Task: TypeAlias = Callable[[], float]
"""Runs once and returns a measurement, such as milliseconds per frame."""

OnStep: TypeAlias = Callable[[str, int, int], None]
"""Called after each step with the part of the benchmark, steps done, and steps in total."""


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
    tasks: Mapping[str, Task], rounds: int, *, on_step: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, list[float]]:
    """Run every task once to warm up, then ``rounds`` times in turn; returns measurements by task.

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


def timed_ms(work: Callable[[], object], device: torch.device, frames: int = 1) -> float:
    """Milliseconds per frame of ``work`` on ``frames`` frames, until ``device`` has finished."""
    synchronise(device)
    started_s = time.perf_counter()
    work()
    synchronise(device)
    return 1000 * (time.perf_counter() - started_s) / frames


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its work, which runs asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
