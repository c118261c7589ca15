"""Plot the results of ``tfcseg bench --scaling``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tfcseg.errors import TfcsegError
from tfcseg.files import replace_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT_SUFFIXES = (".png", ".svg")
_COLOURS = {"plain": "#e08214", "image": "#3a3f4a", "tfc": "#1b6ec2"}
_OTHER_COLOUR = "#7b3294"
_WIDE = 20
"""Range of values, as a factor, from which an axis is logarithmic."""

Curves: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]
"""Name of a curve -> its points (x, y)."""


def require_matplotlib() -> None:
    """Raise TfcsegError if the optional plotting package is missing; call this before any work begins."""
    if importlib.util.find_spec("matplotlib") is None:
        raise TfcsegError("plots need matplotlib, which is not installed; run: pip install matplotlib")


def draw_scaling(path: Path, panels: Mapping[str, Curves], unit: str, title: str) -> None:
    """Draw one panel per quantity, each with its curves over ``unit``, to ``path`` (.png or .svg)."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # A fixed salt makes files reproducible; text as text makes them small and searchable.
    with rc_context({"svg.hashsalt": "tfcseg", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(4.8 * len(panels), 4.2), layout="constrained")
        for axes, (quantity, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            _draw(axes, curves, quantity, unit)
        figure.suptitle(title, fontsize=11)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        with replace_atomically(path) as partial:
            figure.savefig(partial, format=path.suffix[1:], dpi=160, metadata=metadata)


def _draw(axes: Axes, curves: Curves, quantity: str, unit: str) -> None:
    values = sorted({x for points in curves.values() for x, _ in points})
    heights = [y for points in curves.values() for _, y in points]
    for name, points in curves.items():
        colour = _COLOURS.get(name, _OTHER_COLOUR)
        axes.plot([x for x, _ in points], [y for _, y in points], "o-", color=colour, label=name)
    if values[-1] > _WIDE * values[0]:
        axes.set_xscale("log")
    if max(heights) > _WIDE * min(heights):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.08 * max(heights))  # start at 0, so that growth is not exaggerated
    axes.set_xticks(values, [f"{value:g}" for value in values], minor=False)
    axes.minorticks_off()
    axes.set_xlabel(unit)
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
