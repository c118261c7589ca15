"""Plot quality over speed for several keyframe intervals."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tfcseg.comparison.result import METRICS, TradeOffPoint
from tfcseg.errors import TfcsegError
from tfcseg.files import replace_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT_NAMES = ("trade_off.png", "trade_off.svg")
_COLOURS = {"image": "#3a3f4a", "reuse": "#e08214", "blend": "#2e8b57", "tfc": "#1b6ec2"}
_LINES = {"": "o-", "paper": "s--", "aligned": "^-."}
"""A mode's line by the correlation that its name fixes."""
_TITLES = {metric.key: metric.title for metric in METRICS}


def require_matplotlib() -> None:
    """Raise TfcsegError if the optional plotting package is missing; call this before any work begins."""
    if importlib.util.find_spec("matplotlib") is None:
        raise TfcsegError("plots need matplotlib, which is not installed; run: pip install matplotlib")


def draw_trade_off(
    folder: Path,
    points: Sequence[TradeOffPoint],
    keys: Sequence[str],
    title: str,
    *,
    baseline: Mapping[str, float | None] | None = None,
) -> None:
    """Draw metrics ``keys`` against the model's fps, one line per mode, into ``PLOT_NAMES`` of ``folder``.

    baseline: metrics of another program, whose speed is not known; drawn as levels.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # A fixed salt makes equal plots equal files; text as text keeps the picture small and searchable.
    with rc_context({"svg.hashsalt": "tfcseg", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(4.8 * len(keys), 4.2), layout="constrained")
        for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
            _draw_metric(axes, points, key)
            level = (baseline or {}).get(key)
            if level is not None:
                axes.axhline(level, color=_COLOURS["image"], linestyle="--", label="baseline")
        figure.suptitle(f"{title} · numbers are keyframe intervals", fontsize=11)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        for name in PLOT_NAMES:
            metadata = {"Date": None} if name.endswith(".svg") else None
            with replace_atomically(folder / name) as partial:
                figure.savefig(partial, format=name.rpartition(".")[2], dpi=160, metadata=metadata)


def _draw_metric(axes: Axes, points: Sequence[TradeOffPoint], key: str) -> None:
    dots = {mode: _dots(points, mode, key) for mode in dict.fromkeys(point.mode for point in points)}
    for mode, line in dots.items():
        base, _, correlation = mode.partition("-")
        colour = _COLOURS[base]
        fps, values = [dot.fps for dot in line], [dot.value for dot in line]
        axes.plot(fps, values, _LINES[correlation], color=colour, label=mode)
        if mode == "image" or not line:
            continue
        for dot in dots.get("image", []):  # interval 1 is the image network, where every line starts
            axes.plot([dot.fps, line[0].fps], [dot.value, line[0].value], ":", color=colour)
        for dot in line:
            place = (0, -14 if correlation else 6)  # where two lines meet, both labels can be read
            axes.annotate(
                str(dot.interval), (dot.fps, dot.value), place, textcoords="offset points", ha="center", color=colour
            )
    axes.set_xlabel("fps (model only)")
    axes.set_ylabel(f"{_TITLES[key]} (%), {'lower' if key == 'label_change' else 'higher'} is better")
    axes.margins(0.12)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


class _Dot(NamedTuple):
    interval: int
    fps: float
    value: float


def _dots(points: Sequence[TradeOffPoint], mode: str, key: str) -> list[_Dot]:
    """Measured points of one mode, by interval."""
    dots = []
    for point in points:
        fps, value = point.numbers.get("model_fps"), point.numbers.get(key)
        if point.mode == mode and fps is not None and value is not None:
            dots.append(_Dot(point.keyframe_interval, fps, value))
    return sorted(dots)
