"""Draw panels side by side: source, labels of two modes, and where they differ.

Letters: H, W height and width of the video.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import class_shares, covered, mark_difference, overlay, shrink, shrink_labels, side_by_side
from tfcseg.files import replace_atomically
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Image

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


def panel_size(size: tuple[int, int], panels: int) -> tuple[int, int]:
    """(height, width) of one of ``panels`` panels for a video of ``size`` (H, W): the video's own if that fits."""
    scale = min(1.0, (MAX_WIDTH_PX - _GAPS_PX) / (panels * size[1]), MAX_HEIGHT_PX / size[0])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


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
        self._size = panel_size(size, 1 + len(titles) + has_difference)
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
