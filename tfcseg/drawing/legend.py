"""The legend of a video: names and colours of the classes on screen.

Letters: H image height, W image width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.text import Panel, font_px_for, row_px_of, stamp, text_panel
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Image

_MIN_SHARE = 0.0002  # of the frame, the size from which a class is listed: 4×4 pixels of 320×240, 20×20 of 1080p
_KEPT_FRAMES = 30  # for which a class that left keeps its place
_STAY_FACTOR = 1.5  # if there are more classes than places, listed ones count this much more


class Legend:
    """Names and colours of visible classes, in the lower left corner of frames of one ``size`` (H, W).

    A class appears with a visible area and disappears with its last pixel. Rows do not move meanwhile: a new class
    takes a free place, and one that left keeps its place for a second. The classes of ``always`` stay, dimmed when they
    are not in the frame. Use one legend per video; frames too small for legible text get none.
    """

    def __init__(self, label_set: LabelSet, size: tuple[int, int], always: Sequence[int] = ()) -> None:
        self._label_set = label_set
        self._size = size
        self._always = tuple(always)
        self._font_px = font_px_for(size)
        self._places: dict[int, int] = {}
        """Row of each class: 0 is the lowest, counting upwards and on in the next column."""
        self._absent: dict[int, int] = {}
        """Number of frames for which a class with a place has been missing."""
        self.shown: tuple[int, ...] = ()

    def draw(self, image: Image, shares: NDArray[np.float64]) -> None:
        """Draw on ``image`` in place, given the (K,) ``shares`` of its classes (zero for those that are not drawn)."""
        if self._font_px is None:
            return
        margin, row_px, column_px = self._font_px // 2, row_px_of(self._font_px), self._column_px(self._font_px)
        rows = (self._size[0] // 2) // row_px
        self._assign(shares, rows * max(1, (self._size[1] - margin) // column_px))
        for index in self.shown:
            column, above = divmod(self._places[index], rows)
            panel = self._row(index, self._font_px, is_present=shares[index] > 0)
            top = self._size[0] - margin - (above + 1) * row_px
            stamp(image, panel, top=top, left=margin + column * column_px)

    def state(self) -> dict[str, list[int]]:
        """State of the legend in JSON types."""
        classes = sorted(self._places)
        return {
            "classes": classes,
            "places": [self._places[index] for index in classes],
            "absent": [self._absent[index] for index in classes],
            "shown": list(self.shown),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``."""
        self._places = dict(zip(state["classes"], state["places"], strict=True))
        self._absent = dict(zip(state["classes"], state["absent"], strict=True))
        self.shown = tuple(state["shown"])

    def _assign(self, shares: NDArray[np.float64], places: int) -> None:
        """Decide what is shown, and where, in at most ``places`` places."""
        least = np.full(len(shares), _MIN_SHARE)
        least[list(self.shown)] = 0
        worth = dict.fromkeys(self._always, 1.0) | {
            index: float(shares[index]) * (_STAY_FACTOR if index in self.shown else 1) + (index in self._always)
            for index in np.flatnonzero(shares > least).tolist()
        }
        kept = sorted(worth, key=lambda index: -worth[index])[:places]
        self.shown = tuple(sorted(kept))
        self._absent = {index: 0 if index in kept else self._absent[index] + 1 for index in self._places}
        new = [index for index in self.shown if index not in self._places]
        idle = sorted(self._places.keys() - set(kept), key=lambda index: -self._absent[index])
        missing = len(self._places) + len(new) - places
        for number, index in enumerate(idle):
            if self._absent[index] > _KEPT_FRAMES or number < missing:
                del self._places[index], self._absent[index]
        free = sorted(set(range(places)) - set(self._places.values()))
        for index, place in zip(reversed(new), free, strict=False):  # class order reads downwards
            self._places[index], self._absent[index] = place, 0

    def _row(self, index: int, font_px: int, *, is_present: bool) -> Panel:
        name, colour = self._label_set.names[index], self._label_set.palette[index]
        return text_panel(name, font_px, self._size[1] // 2, colour, is_dim=not is_present)

    def _column_px(self, font_px: int) -> int:
        """Width of the widest possible row, and a gap."""
        indices = self._always or range(len(self._label_set))
        widest_px: int = max(self._row(index, font_px, is_present=True).colour.shape[1] for index in indices)
        return widest_px + font_px // 3
