"""Measure the network alone, from decoded frames to label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tfcseg.benchmark.contest import IMAGE, PLAIN, TFC, Contest, contenders, open_plain
from tfcseg.benchmark.timing import alternate, speed, speed_ratios, spread, timed_ms

Labels: TypeAlias = list[NDArray[np.uint8]]
OnStep = Callable[[int, int], None]


def measure_model_only(contest: Contest, on_step: OnStep = lambda done, total: None) -> dict[str, Any]:
    """Time preprocessing, network and labels of all contenders on the clip's decoded frames: fields of `Benchmark`."""
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
    speeds = {name: speed(spread(values), len(labels[name])) for name, values in samples.items()}
    return {
        "model_only": speeds,
        "ratios": {"model_only": speed_ratios(speeds)},
        "agreement": _agreement(labels, compared),
        "updated_fraction": 100 * float(np.mean(updated)) if updated else None,
    }


def _agreement(labels: Mapping[str, Labels], pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    found = {}
    for first, second in pairs:
        if first in labels and second in labels:
            same = [float(np.mean(a == b)) for a, b in zip(labels[first], labels[second], strict=False)]
            found[f"{first}|{second}"] = 100 * float(np.mean(same))
    return found
