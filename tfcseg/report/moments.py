"""Find the moments at which a value is greatest, some time apart from each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from tfcseg.drawing.render import Image

APART_S = 1
"""Minimum distance of moments in all but short videos."""

_ROUNDING_S = 1e-6
_HALVINGS = 3  # the first slots are 1/8 s
_SLOTS = 32  # enough for ten moments: each excludes at most its two neighbours


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


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """A frame whose labels changed much or are unsure, with its pictures for the page."""

    index: int
    share: float
    """Share of all pixels whose label differs from the frame before, or is unsure."""
    changes: tuple[tuple[int, int, float], ...]
    """The most frequent changes: class before, class after, share of all pixels. Unsure classes are both."""
    pictures: Mapping[str, bytes]
    """JPEG files by title, all of one size (`picture_size`)."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    index: int
    share: float
    draw: Callable[[], Moment]


class MomentPool:
    """Keeps the frame with the greatest share in each of the ``_SLOTS`` time slots with the greatest shares.

    Slots grow with the video up to ``APART_S``: short videos have moments, too, and long ones have them everywhere.
    """

    def __init__(self, frame_rate: Fraction) -> None:
        self._frame_rate = frame_rate
        self._halvings = _HALVINGS  # a slot is APART_S / 2**_halvings long
        self._moments: dict[int, Moment] = {}  # by slot
        self._candidate: _Candidate | None = None  # best frame of the current slot

    @classmethod
    def holding(cls, moments: Iterable[Moment], frame_rate: Fraction, frames: int) -> MomentPool:
        """Pool as it was after ``frames`` frames, when it held ``moments``."""
        pool = cls(frame_rate)
        pool._grow(frames - 1)
        pool._moments = {pool._slot(moment.index): moment for moment in moments}
        return pool

    def offer(self, index: int, share: float, draw: Callable[[], Moment]) -> None:
        """Consider frame ``index``, later than all before.

        ``draw`` is called when the frame's slot is over, and only if it changed most in it.
        """
        slot = self._grow(index)
        if self._candidate is not None and self._slot(self._candidate.index) != slot:
            self._settle()
        held = self._moments.get(slot)
        rivals = (held.share if held else 0.0, self._candidate.share if self._candidate else 0.0)
        if share > max(rivals):
            self._candidate = _Candidate(index, share, draw)

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
        return sorted(self._moments.values(), key=lambda moment: moment.index)

    def _settle(self) -> None:
        """Draw the candidate and keep it, unless its slot or all others have greater moments."""
        candidate, self._candidate = self._candidate, None
        if candidate is None:
            return
        slot = self._slot(candidate.index)
        held = self._moments.get(slot)
        if held is None and len(self._moments) == _SLOTS:
            slot_of_least = min(self._moments, key=lambda other: _rank(self._moments[other]))
            held = self._moments[slot_of_least]
            if candidate.share > held.share:
                del self._moments[slot_of_least]
        if held is None or candidate.share > held.share:
            self._moments[slot] = candidate.draw()

    def _slot(self, index: int) -> int:
        return int(index * 2**self._halvings // (self._frame_rate * APART_S))

    def _grow(self, index: int) -> int:
        """Slot of frame ``index``, after joining slots in pairs if there would be too many."""
        while self._slot(index) >= _SLOTS and self._halvings > 0:
            self._halvings -= 1
            earlier, self._moments = self._moments, {}
            for slot, moment in earlier.items():
                self._moments[slot // 2] = max(moment, self._moments.get(slot // 2, moment), key=_rank)
        return self._slot(index)


def _rank(moment: Moment) -> tuple[float, int]:
    """Greater change first, then the earlier one."""
    return moment.share, -moment.index


PICTURE_PX = 320
"""Longest side of a picture on a page."""


def picture_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width) of a picture on the page, of one that begins with ``size`` (height, width)."""
    scale = min(1.0, PICTURE_PX / max(size[:2]))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def encode_jpeg(picture: Image, quality: int) -> bytes:
    """JPEG file of ``picture`` (H, W, 3), ``quality`` 0 to 100."""
    encoded: bytes = cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
    return encoded
