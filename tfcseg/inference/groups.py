"""Frames of a video in the groups in which the network gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from tfcseg.media.frames import Image

_T = TypeVar("_T")


class Section(Enum):
    """What begins with a frame. Sections of a video can be segmented by several workers, each with an end of the
    section before: what keyframes hand on across the border is what those of that end say, and nothing older."""

    GOES_ON = auto()
    END_BEGINS = auto()
    BEGINS = auto()


@dataclass(slots=True)
class Group(Generic[_T]):
    """Frames of one call: an interval, or as many as the network takes at once."""

    images: Sequence[Image]
    """(H, W, 3) uint8 RGB each; may be empty."""
    subject: _T
    """Returned with the results."""
    label_size: tuple[int, int] | None = None
    """(height, width) of the labels; None: the images' size."""
    begins_part: bool = False
    """A run may have been stopped before this group: with both sides its first frame is a keyframe."""
    section: Section = Section.GOES_ON
    """With both sides: what its first frame does to what keyframes hand on."""
    is_wanted: bool = True
    """With both sides: whether its labels are; else they are left out, and keyframes hand on what they say."""
