"""Measure the time of each step by timing the network's functions.

`StepClock` wraps functions by name. Time in a nested timed function counts for that one only, so that steps add up;
the rest is ``other``. The time of parallel workers is divided by their number. On a GPU, every call waits for the
device, so the sum exceeds the time of an unmeasured pass.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import nn

from tfcseg.benchmark.timing import synchronise

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
        "tfcseg.inference.both_sides:lean",
    ),
    "sparse update": (
        "tfcseg.model.tfc:TFCSegmenter._updated",
        "tfcseg.model.tfc:_replace",
        "tfcseg.model.decode_head:DecodeHead.classify_points",
    ),
    "labels": ("tfcseg.inference.engine:labels_from_logits", "tfcseg.inference.steps:labels_from_cells"),
}
"""Functions of each step as ``module:name``, where ``module`` is the one that looks the function up.

Low and high features come from the two halves of the model's backbone, which may be compiled. Correlation includes
similarity, interpolation and the choice of points.
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
        for step, places in STEPS.items():
            for place in places:
                owner, name = resolve(place)
                function = getattr(owner, name)
                self._patches.callback(setattr, owner, name, function)
                setattr(owner, name, self._timed(step, function))
        for step, name in _HALVES.items():
            own = self._backbone.__dict__.get(name)  # set if compiled; otherwise an attribute of the class
            self._patches.callback(_put_back, self._backbone, name, own)
            setattr(self._backbone, name, self._timed(step, getattr(self._backbone, name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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


def _put_back(owner: nn.Module, name: str, value: Any) -> None:
    if value is None:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


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
