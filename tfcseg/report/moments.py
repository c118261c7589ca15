"""Find the moments at which a value is greatest, some time apart from each other, and draw them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import Image, Labels, mark_difference, overlay, shrink, shrink_labels

APART_S = 1  # minimum distance of moments in all but short videos
_HALVINGS = 3  # the first slots are 1/8 s
_SLOTS = 32  # enough for ten moments: each excludes at most its two neighbours
_ROUNDING_S = 1e-6
_QUALITY, _TINT = 80, 0.65

PICTURE_PX = 320  # longest side of a picture on a page


def greatest_moments(times_s: Sequence[float], values: Sequence[float], *, count: int, apart_s: float) -> list[int]:
    """Positions of up to ``count`` of the greatest ``values``, in order of time and at least ``apart_s`` apart.

    The greatest is taken first, then the greatest of those far enough from it, and so on. Zeros are never taken.
    """
    taken: list[int] = []
    for position in np.argsort(-np.asarray(values), kind="stable").tolist():
        if len(taken) == count or values[position] <= 0:
            break
        if all(abs(times_s[position] - times_s[other]) >= apart_s - _ROUNDING_S for other in taken):
            taken.append(position)
    return sorted(taken)


@dataclass(frozen=True, slots=True)
class Moment:
    """A frame whose labels changed much or are unsure, with its pictures for the page."""

    index: int
    share: float  # share of all pixels whose label differs from the frame before, or is unsure
    changes: Sequence[tuple[int, int, float]]
    """The most frequent changes: class before, class after, share of all pixels. Unsure classes are both."""
    pictures: Mapping[str, str]  # data URLs by title, all of one size (`picture_size`)


class MomentPool:
    """Keeps the frame with the greatest share in each of the ``_SLOTS`` time slots with the greatest shares.

    Slots grow with the video up to ``APART_S``: short videos have moments, too, and long ones have them everywhere.
    """

    def __init__(self, frame_rate: Fraction) -> None:
        self._frame_rate = frame_rate
        self._halvings = _HALVINGS  # a slot is APART_S / 2**_halvings long
        self._moments: dict[int, Moment] = {}  # by slot
        self._candidate: tuple[int, float, Callable[[], Moment]] | None = None  # the best of the current slot

    def offer(self, index: int, share: float, draw: Callable[[], Moment]) -> None:
        """Consider frame ``index``, later than all before.

        ``draw`` is called when the frame's slot is over, and only if its share is the greatest in it.
        """
        self._join_slots(index)
        slot, best = self._slot(index), 0.0
        if self._candidate is not None and self._slot(self._candidate[0]) != slot:
            self._settle()
        if self._candidate is not None:
            best = self._candidate[1]
        if slot in self._moments:
            best = max(best, self._moments[slot].share)
        if share > best:
            self._candidate = index, share, draw

    def greatest(self, count: int) -> list[Moment]:
        """Up to ``count`` moments in order of time, a slot or more apart."""
        held = self.held()
        times_s = [float(moment.index / self._frame_rate) for moment in held]
        values = [moment.share for moment in held]
        apart_s = APART_S / 2**self._halvings
        return [held[position] for position in greatest_moments(times_s, values, count=count, apart_s=apart_s)]

    def held(self) -> list[Moment]:
        """All moments, in order of time."""
        self._settle()
        return [self._moments[slot] for slot in sorted(self._moments)]

    def restore(self, held: Sequence[Moment], frames: int) -> None:
        """Continue as the pool that held these moments after ``frames`` frames."""
        self._join_slots(frames - 1)
        self._moments = {self._slot(moment.index): moment for moment in held}

    def _settle(self) -> None:
        """Draw the candidate and keep it, unless all other slots have greater moments."""
        if self._candidate is None:
            return
        (index, share, draw), self._candidate = self._candidate, None
        slot = self._slot(index)
        if slot not in self._moments and len(self._moments) == _SLOTS:
            least = min(self._moments.values(), key=_rank)
            if share <= least.share:
                return
            del self._moments[self._slot(least.index)]
        self._moments[slot] = draw()

    def _join_slots(self, index: int) -> None:
        """Make slots longer if there would be too many up to frame ``index``; the greatest moment of each stays."""
        while self._slot(index) >= _SLOTS and self._halvings > 0:
            self._halvings -= 1
            self._moments = {self._slot(each.index): each for each in sorted(self._moments.values(), key=_rank)}

    def _slot(self, index: int) -> int:
        return int(index * 2**self._halvings // (self._frame_rate * APART_S))


def _rank(moment: Moment) -> tuple[float, int]:
    """Greater change first, then the earlier one."""
    return moment.share, -moment.index


def picture_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width) of a picture on the page, of one that begins with ``size`` (height, width)."""
    scale = min(1.0, PICTURE_PX / max(size[:2]))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def draw_pictures(
    image: Image, maps: Mapping[str, Labels], marks: Mapping[str, NDArray[np.uint8]], palette: NDArray[np.uint8]
) -> dict[str, str]:
    """JPEG files as data URLs by title, of `picture_size`: ``image`` (H, W, 3), ``maps`` of labels in the colours of
    ``palette`` (K, 3), and ``marks`` (h, w) as `covered` returns them at that size."""
    size = picture_size(image.shape)
    frame = shrink(image, size)
    small = {title: shrink_labels(labels, size) for title, labels in maps.items()}
    tinted = {title: overlay(frame, labels, palette, alpha=_TINT) for title, labels in small.items()}
    marked = {title: mark_difference(frame, coverage) for title, coverage in marks.items()}
    jpegs = {title: encode_jpeg(each, _QUALITY) for title, each in {"Frame": frame, **tinted, **marked}.items()}
    return {title: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}" for title, jpeg in jpegs.items()}


def encode_jpeg(picture: Image, quality: int) -> bytes:
    """JPEG file of ``picture`` (H, W, 3), ``quality`` 0 to 100."""
    return bytes(cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1])
