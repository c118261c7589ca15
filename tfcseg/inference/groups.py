"""Frames of a video as they are handed to the network, some at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tfcseg.media.frames import Image

_T = TypeVar("_T")


@dataclass(slots=True)
class Group(Generic[_T]):
    """Frames of one call: an interval, or where the network takes several at once, these."""

    images: Sequence[Image]
    """(H, W, 3) uint8 RGB each; may be empty."""
    subject: _T
    """What comes back beside the results."""
    label_size: tuple[int, int] | None = None
    """(height, width) of the labels; None: the images'."""
    begins_part: bool = False
    """A run may have been stopped before it: with both sides its first frame is a keyframe."""
    begins_section: bool = False
    """Another worker may compute it: its first keyframe takes nothing over from those before it."""
