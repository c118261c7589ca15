"""Draw frames side by side: rows with labels of two modes and where they differ, or a grid of all steps of TFC.

Letters: H, W height and width of the video, h w grid of the similarity (stride 4). Lengths are in px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import class_shares, covered, mark_difference, overlay, shrink, shrink_labels, side_by_side
from tfcseg.files import replace_atomically
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Image

if TYPE_CHECKING:
    from tfcseg.inference.segmented import SegmentedFrame

MAX_WIDTH_PX, MAX_HEIGHT_PX = 3840, 2160
"""Pixels of all panels together; video players and picture viewers cannot show more."""
_GAPS_PX = 40

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""Kinds of pictures by suffix."""


def write_picture(path: Path, picture: Image) -> None:
    """Write a picture, in a folder that is made if needed, complete or not at all; OutputError if that fails."""
    with replace_atomically(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(picture).save(partial, FORMATS[path.suffix.lower()], quality=90)


class RowPainter:
    """Draws rows for one video: original | results …, and with ``has_difference`` where two results differ.

    Use one per row and video: its legends follow what is visible.
    """

    def __init__(
        self, labels: LabelSet, size: tuple[int, int], titles: Sequence[str], *, has_difference: bool = False
    ) -> None:
        self._palette, self._classes = labels.palette_array(), len(labels)
        self._titles = titles
        self._has_difference = has_difference
        panels = 1 + len(titles) + has_difference
        scale = min(1.0, (MAX_WIDTH_PX - _GAPS_PX) / (panels * size[1]), MAX_HEIGHT_PX / size[0])
        self._size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        self._legends = [Legend(labels, self._size) for _ in titles]

    @property
    def row_size(self) -> tuple[int, int]:
        """(height, width) of the rows."""
        panels = 1 + len(self._titles) + self._has_difference
        blank = np.zeros((*self._size, 3), np.uint8)
        row = side_by_side([blank] * panels, [""] * panels)
        return row.shape[0], row.shape[1]

    def draw(self, image: Image, results: Sequence[NDArray[np.uint8]]) -> Image:
        """Row of ``image`` (H, W, 3) and one panel for each of ``results`` ((H, W) labels)."""
        panels = [shrink(image, self._size)]
        for labels, legend in zip(results, self._legends, strict=True):
            small = shrink_labels(labels, self._size)
            panel = overlay(panels[0], small, self._palette)
            legend.draw(panel, class_shares(small, self._classes))
            panels.append(panel)
        titles = ["original", *self._titles]
        if self._has_difference:
            is_different = results[0] != results[1]
            panels.append(mark_difference(panels[0], covered(is_different, panels[0].shape[:2])))
            titles.append(f"{100 * is_different.mean():.1f} % differ")
        return side_by_side(panels, titles)


MAX_WIDTH, MAX_HEIGHT = 2000, 4000
"""Pixels of the panels of a grid together."""

SCALE = (0.5, 1.0)
"""Similarities at the ends of the colour scale: below, everything looks the same; most of a scene is above."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One frame: as the image network labels it, and as TFC does."""

    frame: SegmentedFrame
    image_labels: NDArray[np.uint8]  # (H, W)


def draw_frame_grid(columns: Sequence[Column], labels: LabelSet, threshold: float | None) -> Image:
    """The picture of at least one column: source, labels of both modes, similarity, updated points.

    TFC updated the points below ``threshold``. Their row is left out if there are none, or if no threshold chose them.
    """
    has_updates = threshold is not None and any(column.frame.updated_fraction for column in columns)
    height, width = columns[0].frame.image.shape[:2]
    scale = min(1.0, MAX_WIDTH / (len(columns) * width), MAX_HEIGHT / ((4 + has_updates) * height))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    panels = [_panels(column, labels, size, threshold if has_updates else None) for column in columns]
    rows = [side_by_side(*zip(*row, strict=True)) for row in zip(*panels, strict=True)]
    gap = np.zeros((2 * max(1, round(size[0] / 360)), rows[0].shape[1], 3), np.uint8)
    return np.concatenate([part for row in rows for part in (row, gap)][:-1])


def _panels(
    column: Column, labels: LabelSet, size: tuple[int, int], threshold: float | None
) -> list[tuple[Image, str]]:
    """Panels of ``size`` (h, w) from top to bottom, and their titles; keyframes have no similarity."""
    frame, image = column.frame, shrink(column.frame.image, size)
    what = ", keyframe" if frame.is_keyframe else ""
    panels = [(image, f"frame {frame.index}, {frame.time_s:.2f} s{what}")]
    for name, found in (("image", column.image_labels), ("tfc", frame.labels)):
        small = shrink_labels(found, size)
        panel = overlay(image, small, labels.palette_array())
        Legend(labels, size).draw(panel, class_shares(small, len(labels)))
        panels.append((panel, name))
    nothing = np.zeros_like(image)
    if frame.similarity is None:
        return [*panels, *[(nothing, "keyframe")] * (1 if threshold is None else 2)]
    # Cells with sharp edges.
    w = np.asarray(cv2.resize(frame.similarity, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.float32)
    panels.append((similarity_colours(w), f"similarity, {SCALE[0]:g} (dark) to {SCALE[1]:g}"))
    if threshold is not None:
        panels.append(
            (
                mark_difference(image, covered(w < threshold, size)),
                f"{100 * (frame.updated_fraction or 0):.1f} % updated",
            )
        )
    return panels


def similarity_colours(w: NDArray[np.float32]) -> Image:
    """Similarities (h, w) in colour: dark violet at the lower end of ``SCALE`` and below, yellow at 1."""
    share = np.clip((w - SCALE[0]) / (SCALE[1] - SCALE[0]), 0, 1)
    coloured = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(coloured[..., ::-1])
