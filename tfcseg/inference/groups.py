"""Frames that go through the network together, frames that repeat a picture, and borders of parts and sections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from tfcseg.media.frames import Frame, Image

_T = TypeVar("_T")


SECTION_PARTS = 8
"""Parts of a section, a minute or more; the last one is its end.

Sections of a video can be segmented by several workers, each of which starts with the end of the section before its
own. Only the keyframes of that end are carried over to the next section, none before them.
"""


@dataclass(slots=True)
class Group(Generic[_T]):
    """Frames of one call: an interval, or as many as the network takes at once."""

    images: Sequence[Image]  # (H, W, 3) uint8 RGB each; may be empty
    subject: _T  # returned with the results
    label_size: tuple[int, int] | None = None  # (height, width) of the labels; None: the images' size
    part: int | None = None
    """Place in its section of the part that begins here, if one does. A run may have been stopped before it: unless
    sides are ``one``, its first frame is a keyframe."""
    is_wanted: bool = True
    """Unless sides are ``one``: whether its labels are needed; if not, its keyframes serve the carry-over alone."""


MOST_FRAMES = 500
"""A picture is computed again after this many frames, so that a still hour does not fill the memory."""

_SAMPLED_ROWS = 16


def is_same_picture(image: Image, other: Image) -> bool:
    """Whether two (H, W, 3) images are equal in every byte. Most that differ do so in the first few rows compared."""
    if image is other:
        return True
    return (
        image.shape == other.shape
        and np.array_equal(image[::_SAMPLED_ROWS], other[::_SAMPLED_ROWS])
        and np.array_equal(image, other)
    )


def pictures(frames: Iterable[Frame], part_frames: int | None = None) -> Iterator[list[Frame]]:
    """Group consecutive frames that show the same picture; all hold the same image, and all but the first are held.

    Reads one frame ahead. With ``part_frames``, every frame whose index is a multiple of it starts a new picture, since
    later frames must not depend on earlier parts.
    """
    shown: list[Frame] = []
    for frame in frames:
        if shown and is_shown_by(shown, frame, part_frames):
            shown.append(replace(frame, image=shown[0].image, is_held=True))
            continue
        if shown:
            yield shown
        shown = [frame]
    if shown:
        yield shown


def is_shown_by(shown: list[Frame], frame: Frame, part_frames: int | None) -> bool:
    """Whether ``frame`` repeats the picture of ``shown``."""
    return (
        len(shown) < MOST_FRAMES
        and part_at(frame, part_frames) is None
        and is_same_picture(frame.image, shown[0].image)
    )


def part_at(frame: Frame, part_frames: int | None) -> int | None:
    """Place in its section of the part of results that begins with ``frame``; None if none does."""
    if part_frames is None or frame.index % part_frames:
        return None
    return frame.index // part_frames % SECTION_PARTS
