"""Coordinates of the page's plot of quality over speed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfcseg.comparison.result import METRICS, Comparison

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 14, 44
"""Margins around the plot, in units of the picture."""

_KEYS = {"video": ("label_change", "flow_consistency"), "vspw": ("miou", "vc8")}
_TITLES = {metric.key: metric.title for metric in METRICS}
_ROOM = 0.15  # of the range, so that dots and their names do not touch the frame


@dataclass(frozen=True, slots=True)
class Dot:
    """A mode at an interval, in units of the picture."""

    mode: str
    label: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Axis:
    """Round numbers along an axis and where they stand."""

    title: str
    ticks: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Scatter:
    """One plot: a metric against the speed of the network."""

    title: str
    dots: tuple[Dot, ...]
    lines: tuple[tuple[str, str], ...]
    """Mode, and the points of the line through its dots."""
    x: Axis
    y: Axis


def scatters(comparison: Comparison) -> list[Scatter]:
    """The plots that ``comparison`` has numbers for."""
    interval = comparison.options["keyframe_interval"]
    points = comparison.trade_off or [
        {"mode": mode, "keyframe_interval": interval, **numbers} for mode, numbers in comparison.modes.items()
    ]
    found = [scatter_of(points, key) for key in _KEYS[comparison.kind]]
    return [plot for plot in found if plot is not None]


def scatter_of(points: Sequence[Mapping[str, Any]], key: str) -> Scatter | None:
    """Metric ``key`` of ``points`` against the speed of the network; None if fewer than two have both."""
    measured = [
        (point, fps, value)
        for point in sorted(points, key=lambda point: (point["mode"], point["keyframe_interval"]))
        if (fps := point.get("model_fps")) is not None and (value := point.get(key)) is not None
    ]
    if len(measured) < 2:
        return None
    times = Counter(point["mode"] for point in points)
    x_range, y_range = _range([fps for _, fps, _ in measured]), _range([value for _, _, value in measured])
    dots = tuple(
        Dot(
            point["mode"],
            point["mode"] if times[point["mode"]] == 1 else f"{point['mode']} {point['keyframe_interval']}",
            round(_place(fps, x_range, LEFT, WIDTH - RIGHT), 1),
            round(_place(value, y_range, HEIGHT - BOTTOM, TOP), 1),
        )
        for point, fps, value in measured
    )
    modes = dict.fromkeys(point["mode"] for point in points if point["mode"] != "image")
    lines = [(mode, " ".join(f"{dot.x},{dot.y}" for dot in dots if dot.mode == mode)) for mode in modes]
    better = "lower" if key == "label_change" else "higher"
    return Scatter(
        title=f"{_TITLES[key]} and speed",
        dots=dots,
        lines=tuple((mode, line) for mode, line in lines if " " in line),
        x=Axis("frames per second, network", _ticks(x_range, LEFT, WIDTH - RIGHT)),
        y=Axis(f"{_TITLES[key]} (%), {better} is better", _ticks(y_range, HEIGHT - BOTTOM, TOP)),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = _ROOM * (high - low) or 0.05 * abs(high) or 1.0
    return max(0.0, low - room), high + room


def _place(value: float, limits: tuple[float, float], start: float, end: float) -> float:
    return start + (value - limits[0]) / (limits[1] - limits[0]) * (end - start)


def _ticks(limits: tuple[float, float], start: float, end: float) -> tuple[tuple[str, float], ...]:
    """Three to eight round numbers within ``limits``, and their places between ``start`` and ``end``."""
    longest = (limits[1] - limits[0]) / 3
    magnitude = 10.0 ** math.floor(math.log10(longest))
    step = magnitude * next(size for size in (5, 2, 1) if size * magnitude <= longest)
    digits = max(0, -math.floor(math.log10(step)))
    numbers = [count * step for count in range(math.ceil(limits[0] / step), math.floor(limits[1] / step) + 1)]
    return tuple((f"{number:.{digits}f}", round(_place(number, limits, start, end), 1)) for number in numbers)
