"""A video whose labels are on disk, which all exports read.

Letters: H, W image height and width, K classes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.labels.label_sets import NO_CLASS, LabelSet
from tfcseg.media.frames import Image, most_waiting, prefetch
from tfcseg.media.masks import Labels, count_values, read_mask

AddFrame: TypeAlias = Callable[[int, Labels], None]
"""Adds a frame to a file: its index and (H, W) labels."""
AddNote: TypeAlias = Callable[[str], None]
"""Takes a message for the user: something that the format cannot represent."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledVideo:
    """Labels of all frames of a video, and the classes to export."""

    masks: Sequence[Path]  # PNG of each frame
    size: tuple[int, int]  # (height, width)
    frame_rate: Fraction
    pixel_aspect: Fraction = Fraction(1)
    names: Sequence[str] = ()  # files of the frames, if each has its own
    labels: LabelSet
    values: NDArray[np.uint8] | None = None
    """(256,) label of each value in the masks, if they differ."""
    shown: NDArray[np.bool_]  # (K,) flags of the classes to export
    open_images: Callable[[], AbstractContextManager[Iterator[Image]]]
    """Opens the frames themselves, (H, W, 3) RGB, from the first one."""

    @property
    def shown_indices(self) -> list[int]:
        """Classes that are exported."""
        return np.flatnonzero(self.shown).tolist()

    @property
    def encoding(self) -> dict[str, Any]:
        """Arguments of video writers."""
        return {"size": self.size, "frame_rate": self.frame_rate, "pixel_aspect": self.pixel_aspect}

    def name(self, index: int) -> str:
        """File of a frame, as datasets call it: its own, or a number."""
        return self.names[index] if self.names else f"{index:08d}.jpg"

    def read_labels(self) -> Iterator[Labels]:
        """(H, W) of each frame, some read ahead; DataError for a missing, damaged or foreign one."""
        found = (read_labels(path, self.size, self.labels, self.values) for path in self.masks)
        with closing(prefetch(found, most_waiting(*self.size))) as read:
            yield from read

    def only_shown(self, labels: Labels) -> Labels:
        """``labels`` with NO_CLASS in place of classes that are not exported."""
        table = np.full(256, NO_CLASS, np.uint8)
        table[self.shown_indices] = self.shown_indices
        return np.asarray(cv2.LUT(labels, table), dtype=np.uint8)


def read_labels(path: Path, size: tuple[int, int], labels: LabelSet, values: NDArray[np.uint8] | None = None) -> Labels:
    """(H, W) of one frame, looked up in ``values``; DataError for a file that is missing, damaged or foreign."""
    found = read_mask(path) if values is None else np.asarray(cv2.LUT(read_mask(path), values), np.uint8)
    if found.shape != size:
        raise DataError(f"mask {str(path)!r} is {found.shape[1]}×{found.shape[0]}, the video is {size[1]}×{size[0]}")
    unknown = count_values(found)[len(labels) : NO_CLASS]
    if unknown.any():
        value = len(labels) + int(unknown.argmax())
        raise DataError(f"mask {str(path)!r} has the value {value}, which is none of {len(labels)} classes")
    return found


def classes_in(labels: Labels) -> list[int]:
    """Classes that labels have, in order."""
    return np.flatnonzero(count_values(labels)[:NO_CLASS]).tolist()


def add_to_zip(archive: zipfile.ZipFile, name: str, data: str | bytes) -> None:
    """Add a file without a time, so that the same labels make the same archive."""
    archive.writestr(zipfile.ZipInfo(name), data, archive.compression)
