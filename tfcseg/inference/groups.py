"""Groups of frames that are passed to the network together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from tfcseg.media.frames import Image

_T = TypeVar("_T")


class Section(Enum):
    """Border of a section at a frame.

    Sections of a video can be segmented by several workers, each of which starts with the end of the section before its
    own. Only the keyframes of that end are carried over to the next section, none before them.
    """

    GOES_ON = auto()
    """No border."""
    END_BEGINS = auto()
    """The end of a section begins."""
    BEGINS = auto()
    """A section begins."""


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
    """With both sides: the border at its first frame."""
    is_wanted: bool = True
    """With both sides: whether its labels are needed; if not, its keyframes serve the carry-over alone."""
