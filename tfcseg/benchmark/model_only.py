"""Measure the network alone, from decoded frames to label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tfcseg.benchmark.breakdown import step_times_ms
from tfcseg.benchmark.contest import IMAGE, PLAIN, TFC, Contest, contenders, open_plain
from tfcseg.benchmark.timing import Spread, alternate, spread, timed_ms

Labels: TypeAlias = list[NDArray[np.uint8]]
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ModelOnly:
    """Milliseconds per frame of every contender, and agreement of their labels."""

    ms_per_frame: Mapping[str, Spread]
    agreement: Mapping[str, float]
    """``first|second`` -> percentage of the pixels with the same label in both."""
    updated_fraction: float | None
    """Percentage of the points between keyframes that TFC updated."""


def measure_model_only(contest: Contest, on_step: OnStep = lambda done, total: None) -> ModelOnly:
    """Time preprocessing, network and labels of all contenders on the clip's decoded frames."""
    images, device = contest.clip.images, contest.model.device
    names = contenders(contest)
    tasks: dict[str, Callable[[], float]] = {}
    labels: dict[str, Labels] = {}
    updated: list[float] = []
    compared = [(IMAGE, TFC)]
    if PLAIN in names:
        plain = open_plain(contest)
        few = images[: contest.request.plain_frames]
        if plain.has_same_weights:
            compared.append((PLAIN, IMAGE))

        def run_plain() -> None:
            labels[PLAIN] = [plain.labels(image) for image in few]

        tasks[PLAIN] = lambda: timed_ms(run_plain, device, len(few))

    def run_ours(mode: str) -> None:
        frames = contest.segment(mode, images)
        labels[mode] = [frame.labels for frame in frames]
        updated[:] = [frame.updated_fraction for frame in frames if frame.updated_fraction is not None] or updated

    for mode in (IMAGE, TFC):
        if mode in names:
            tasks[mode] = lambda mode=mode: timed_ms(lambda: run_ours(mode), device, len(images))  # type: ignore[misc]
    samples = alternate(tasks, contest.request.rounds, on_step=on_step)
    return ModelOnly(
        {name: spread(values) for name, values in samples.items()},
        _agreement(labels, compared),
        100 * float(np.mean(updated)) if updated else None,
    )


def measure_breakdown(contest: Contest, on_step: OnStep = lambda done, total: None) -> dict[str, dict[str, Spread]]:
    """Milliseconds per frame of every step of our contenders' networks."""
    found: dict[str, dict[str, list[float]]] = {}
    names = [name for name in contenders(contest) if name != PLAIN]
    rounds = contest.request.rounds
    for number in range(rounds + 1):
        for index, mode in enumerate(names):
            images = contest.clip.images
            work = partial(contest.segment, mode, images)
            backbone, device = contest.model.network.backbone, contest.model.device
            times = step_times_ms(work, backbone, device, len(images), contest.workers(mode))
            on_step(number * len(names) + index + 1, (rounds + 1) * len(names))
            if number:  # round 0 is the warm-up
                for step, time_ms in times.items():
                    found.setdefault(mode, {}).setdefault(step, []).append(time_ms)
    return {mode: {step: spread(values) for step, values in steps.items()} for mode, steps in found.items()}


def _agreement(labels: Mapping[str, Labels], pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    found = {}
    for first, second in pairs:
        if first in labels and second in labels:
            same = [float(np.mean(a == b)) for a, b in zip(labels[first], labels[second], strict=False)]
            found[f"{first}|{second}"] = 100 * float(np.mean(same))
    return found
