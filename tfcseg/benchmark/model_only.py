"""Measure the network alone, from decoded frames to label maps."""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeAlias
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tfcseg.benchmark.contest import IMAGE, PLAIN, TFC, Contest, contenders, open_plain
from tfcseg.benchmark.timing import Spread, alternate, speed, speed_ratios, spread, synchronise, timed_ms

OTHER = "other"

STEPS: dict[str, tuple[str, ...]] = {
    "preprocess": ("tfcseg.inference.engine:IntervalNetwork.to_input",),
    "low features": (),
    "high features": (),
    "head": (
        "tfcseg.model.tfc:TFCSegmenter._mixed_embedding",
        "tfcseg.model.decode_head:DecodeHead.fuse_level",
        "tfcseg.model.decode_head:DecodeHead.fuse_high",
        "tfcseg.model.decode_head:DecodeHead.embed",
        "tfcseg.model.decode_head:DecodeHead.classify",
    ),
    "search": (
        "tfcseg.model.tfc:find_shift",
        "tfcseg.model.carry_over:find_shift",
        "tfcseg.model.evidence:find_matches",
    ),
    "correlation": (
        "tfcseg.model.tfc:TFCSegmenter._keyframe",
        "tfcseg.model.tfc:TFCSegmenter._non_keyframes",
        "tfcseg.model.tfc:move",
        "tfcseg.model.tfc:carry_over",
        "tfcseg.inference.steps:compare",
        "tfcseg.inference.steps:mix",
        "tfcseg.inference.both_sides:combine",
    ),
    "sparse update": (
        "tfcseg.model.tfc:TFCSegmenter._updated",
        "tfcseg.model.tfc:_replace",
        "tfcseg.model.decode_head:DecodeHead.classify_points",
    ),
    "labels": ("tfcseg.inference.engine:labels_from_logits", "tfcseg.inference.steps:labels_from_cells"),
}
"""Functions of each step as ``module:name``, where ``module`` is the one that looks the function up.

Low and high features come from the two halves of the model's backbone. Correlation includes similarity, interpolation
and the choice of points.
"""
_HALVES = {"low features": "encode_low", "high features": "encode_high"}


class StepClock:
    """Context in which the functions of ``STEPS`` are timed; ``seconds`` has the time of each step so far."""

    def __init__(self, backbone: nn.Module, device: torch.device) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self._backbone, self._device = backbone, device
        self._running = _Running()
        self._adding = threading.Lock()
        self._patches = ExitStack()

    def __enter__(self) -> StepClock:
        functions = [(step, *resolve(place)) for step, places in STEPS.items() for place in places]
        functions += [(step, self._backbone, name) for step, name in _HALVES.items()]
        for step, owner, name in functions:
            timed = self._timed(step, getattr(owner, name))
            self._patches.enter_context(mock.patch.object(owner, name, timed))
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self._patches.close()

    def _timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            synchronise(self._device)
            started_s = time.perf_counter()
            inner_s = self._running.inner_s
            inner_s.append(0.0)
            try:
                result = function(*args, **kwargs)
                synchronise(self._device)
            finally:
                elapsed_s = time.perf_counter() - started_s
                own_s = elapsed_s - inner_s.pop()
                with self._adding:
                    self.seconds[step] += own_s
                if inner_s:
                    inner_s[-1] += elapsed_s
            return result

        return timed


class _Running(threading.local):
    """For each running timed function of a thread: seconds in timed functions that it called."""

    def __init__(self) -> None:
        self.inner_s: list[float] = []


def resolve(place: str) -> tuple[Any, str]:
    """Find owner and name of a function given as ``module:name`` or ``module:Class.name``."""
    module, _, path = place.partition(":")
    *classes, name = path.split(".")
    owner = functools.reduce(getattr, classes, importlib.import_module(module))
    return owner, name


def step_times_ms(
    work: Callable[[], object], backbone: nn.Module, device: torch.device, frames: int, workers: int = 1
) -> dict[str, float]:
    """Milliseconds per frame of every step of ``work`` on ``frames`` frames, and of the rest.

    ``workers`` is the number of intervals that are computed at the same time.
    """
    with StepClock(backbone, device) as clock:
        synchronise(device)
        started_s = time.perf_counter()
        work()
        synchronise(device)
        total_s = time.perf_counter() - started_s
    seconds = {step: seconds / workers for step, seconds in clock.seconds.items()}
    steps = {**seconds, OTHER: total_s - sum(seconds.values())}
    return {step: 1000 * seconds / frames for step, seconds in steps.items()}


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
