"""Frames that show the picture of the frame before once more: they get its labels, and nothing of them is computed.

Pauses of a recording, slides and still screens are made of such frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from tfcseg.inference.groups import Section
from tfcseg.media.frames import Frame, Image

MOST_FRAMES = 500
"""Of one picture: it is computed anew after so many, so that a still hour does not fill the memory with its frames."""

SECTION_PARTS = 8
"""Parts of a section, a minute or more; the last one is its end."""

_SAMPLED_ROWS = 16


def is_same_picture(image: Image, other: Image) -> bool:
    """Whether two (H, W, 3) images are one, or equal in every byte; most that differ do so in a few of their rows."""
    if image is other:
        return True
    return (
        image.shape == other.shape
        and np.array_equal(image[::_SAMPLED_ROWS], other[::_SAMPLED_ROWS])
        and np.array_equal(image, other)
    )


def pictures(frames: Iterable[Frame], part_frames: int | None = None) -> Iterator[list[Frame]]:
    """Consecutive frames that show one picture, together: all hold the same image, and all but the first are held.

    Reads one frame ahead. With ``part_frames`` every frame whose index it divides begins a picture, since what comes
    after it must not depend on what was before.
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
    """Whether ``frame`` goes on showing the picture of ``shown``."""
    return (
        len(shown) < MOST_FRAMES
        and not begins_part(frame, part_frames)
        and is_same_picture(frame.image, shown[0].image)
    )


def begins_part(frame: Frame, part_frames: int | None) -> bool:
    """Whether a part of the results begins with ``frame``."""
    return part_frames is not None and frame.index % part_frames == 0


def section_at(frame: Frame, part_frames: int | None) -> Section:
    """What of a section begins with ``frame``."""
    if not begins_part(frame, part_frames) or part_frames is None:
        return Section.GOES_ON
    part = frame.index // part_frames % SECTION_PARTS
    return {0: Section.BEGINS, SECTION_PARTS - 1: Section.END_BEGINS}.get(part, Section.GOES_ON)
