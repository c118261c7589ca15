"""Polygons for YOLO's segmentation: a zip as Ultralytics lays out data sets.

Letters: H, W image height and width, N points.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.exports import ZIP_MARK
from tfcseg.exports.labelled_video import AddFrame, AddNote, LabelledVideo, add_to_zip, classes_in
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.media.masks import Labels

LEAST_PX = 16
"""Smaller parts are left out: a polygon of a few pixels teaches nothing."""

_DECIMALS = 6


@dataclass(slots=True)
class _Losses:
    """Losses when masks become polygons."""

    holes: int = 0
    small: int = 0
    wrong_pixels: int = 0
    pixels: int = 0

    def __str__(self) -> str:
        wrong = self.wrong_pixels / max(1, self.pixels)
        return (
            f"polygons cannot have holes, {self.holes} were filled; {self.small} parts below {LEAST_PX} pixels, or as "
            f"thin as a line, were left out; drawn in their order they give {wrong:.3%} of the pixels another label"
        )


@contextmanager
def write_yolo(path: Path, video: LabelledVideo, note: AddNote) -> Iterator[AddFrame]:
    """Write ``path`` while the block gives it each frame; at its end ``note`` is called with the losses.

    A frame's polygons go from the largest to the smallest. Drawn in this order they give back the labels, since parts
    in the hole of another are drawn after it.
    """
    losses = _Losses()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = ZIP_MARK

        def add(index: int, labels: Labels) -> None:
            name = f"labels/train/{PurePath(video.name(index)).stem}.txt"
            add_to_zip(archive, name, "".join(_rows(video.only_shown(labels), losses)))

        yield add
        add_to_zip(archive, "train.txt", "".join(f"images/train/{video.name(n)}\n" for n in range(len(video.masks))))
        names = "".join(f"  {index}: {json.dumps(name)}\n" for index, name in enumerate(video.labels.names))
        add_to_zip(archive, "data.yaml", f"# {losses}\npath: .\ntrain: train.txt\nval: train.txt\nnames:\n{names}")
    if losses.holes or losses.small or losses.wrong_pixels:
        note(f"yolo.zip: {losses}")


def _rows(labels: Labels, losses: _Losses) -> list[str]:
    """``class x y x y …`` of each part, with coordinates from 0 to 1."""
    parts = [part for label in classes_in(labels) for part in _parts(labels, label, losses)]
    parts.sort(key=lambda part: -part.pixels)
    drawn = np.full_like(labels, NO_CLASS)
    scale = np.array([labels.shape[1], labels.shape[0]])
    rows = []
    for part in parts:
        cv2.fillPoly(drawn, [part.outline], part.label)
        # The centres of pixels, so that programs that round down find the same pixel, not the one before it.
        numbers = ((part.outline[:, 0] + 0.5) / scale).ravel().tolist()
        rows.append(f"{part.label} {' '.join(f'{number:.{_DECIMALS}f}' for number in numbers)}\n")
    losses.pixels += labels.size
    losses.wrong_pixels += int(np.count_nonzero(drawn != labels))
    return rows


class _Part(NamedTuple):
    """A connected part of a class."""

    label: int
    pixels: int
    """With those of its holes."""
    outline: NDArray[np.int32]
    """(N, 1, 2) x and y of the pixels at its corners."""


def _parts(labels: Labels, label: int, losses: _Losses) -> Iterator[_Part]:
    outlines, hierarchy = cv2.findContours((labels == label).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for found, (*_, outer) in zip(outlines, hierarchy[0].tolist(), strict=True):
        outline = np.asarray(found, dtype=np.int32)
        pixels = _pixels_within(outline)
        if outer >= 0:
            losses.holes += 1
        elif pixels < LEAST_PX or len(outline) < 3:
            losses.small += 1
        else:
            yield _Part(label, pixels, outline)


def _pixels_within(outline: NDArray[np.int32]) -> int:
    """Number of pixels of a filled outline, itself included: Pick's theorem."""
    steps = int(np.abs(np.diff(outline[:, 0], axis=0, append=outline[:1, 0])).max(axis=1).sum())
    return round(cv2.contourArea(outline) + steps / 2 + 1)
