"""Time several contenders fairly: in turn, after warm-up, on a device that has finished what it was given."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

Task: TypeAlias = Callable[[], float]
"""Does its work once and returns how long it took, in a unit of its own (here: milliseconds per frame)."""

OnStep: TypeAlias = Callable[[str, int, int], None]
"""Called after each step of a part of the benchmark: what is measured, steps done, steps in total."""


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
    """Run every task once to warm up, then ``rounds`` times in turn; the measurements by task.

    Every second round goes backwards: a machine that gets slower or faster meanwhile does so for all alike.
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
    """Milliseconds per frame that ``work`` on ``frames`` frames takes until ``device`` has finished it."""
    synchronise(device)
    started_s = time.perf_counter()
    work()
    synchronise(device)
    return 1000 * (time.perf_counter() - started_s) / frames


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done all that was asked of it: its calls return before their work is finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
