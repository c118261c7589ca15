"""Frames that go through the network together, frames that repeat a picture, and borders of parts and sections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Generic, TypeVar

import numpy as np

from tfcseg.media.frames import Frame, Image

_T = TypeVar("_T")


class Section(Enum):
    """Border of a section at a frame.

    Sections of a video can be segmented by several workers, each of which starts with the end of the section before its
    own. Only the keyframes of that end are carried over to the next section, none before them.
    """

    GOES_ON = auto()  # no border
    END_BEGINS = auto()  # the end of a section begins
    BEGINS = auto()  # a section begins


@dataclass(slots=True)
class Group(Generic[_T]):
    """Frames of one call: an interval, or as many as the network takes at once."""

    images: Sequence[Image]  # (H, W, 3) uint8 RGB each; may be empty
    subject: _T  # returned with the results
    label_size: tuple[int, int] | None = None  # (height, width) of the labels; None: the images' size
    begins_part: bool = False
    """A run may have been stopped before this group: unless sides are ``one``, its first frame is a keyframe."""
    section: Section = Section.GOES_ON  # unless sides are ``one``: the border at its first frame
    is_wanted: bool = True
    """Unless sides are ``one``: whether its labels are needed; if not, its keyframes serve the carry-over alone."""


MOST_FRAMES = 500
"""A picture is computed again after this many frames, so that a still hour does not fill the memory."""

SECTION_PARTS = 8  # parts of a section, a minute or more; the last one is its end

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
        and not begins_part(frame, part_frames)
        and is_same_picture(frame.image, shown[0].image)
    )


def begins_part(frame: Frame, part_frames: int | None) -> bool:
    """Whether a part of the results starts with ``frame``."""
    return part_frames is not None and frame.index % part_frames == 0


def section_at(frame: Frame, part_frames: int | None) -> Section:
    """Border of a section at ``frame``."""
    if not begins_part(frame, part_frames) or part_frames is None:
        return Section.GOES_ON
    part = frame.index // part_frames % SECTION_PARTS
    return {0: Section.BEGINS, SECTION_PARTS - 1: Section.END_BEGINS}.get(part, Section.GOES_ON)
