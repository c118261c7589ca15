"""Draw frames side by side: rows with labels of two modes and where they differ, or a grid of all steps of TFC.

Letters: H, W height and width of the video, h w grid of the similarity (stride 4). Lengths are in px.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw

from tfcseg.drawing.legend import Legend, load_font, printable
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
ROWS = ("source", "image", "tfc", "similarity", "updated")

SCALE = (0.5, 1.0)
"""Similarities at the ends of the colour scale: below, everything looks the same; most of a scene is above."""
_MIN_SHARE = 0.001  # share of all panels below which a class is not in the legend

_PAPER, _INK, _FAINT, _EMPTY = (255, 255, 255), (28, 30, 34), (112, 116, 124), (238, 239, 241)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One frame: as the image network labels it, and as TFC does."""

    frame: SegmentedFrame
    image_labels: NDArray[np.uint8]  # (H, W)


def draw_frame_grid(columns: Sequence[Column], labels: LabelSet, threshold: float | None) -> Image:
    """The picture of at least one column.

    TFC updated the points below ``threshold``. Their row is left out if there are none, or if no threshold chose them.
    """
    return _GridPainter(columns, labels, threshold).draw()


class _GridPainter:
    """Lays the picture out once, then fills it."""

    def __init__(self, columns: Sequence[Column], labels: LabelSet, threshold: float | None) -> None:
        self._columns, self._labels, self._threshold = columns, labels, threshold
        has_updates = threshold is not None and any(column.frame.updated_fraction for column in columns)
        self._rows = ROWS if has_updates else ROWS[:-1]
        height, width = columns[0].frame.image.shape[:2]
        scale = min(1.0, 0.86 * MAX_WIDTH / (len(columns) * width), 0.9 * MAX_HEIGHT / (len(self._rows) * height))
        self._panel: tuple[int, int] = (max(1, round(height * scale)), max(1, round(width * scale)))
        self._font_px = min(20, max(11, round(self._panel[1] / 24)))
        self._font = load_font(self._font_px)
        self._gap = max(4, self._font_px // 2)
        self._left = self._gap + math.ceil(max(self._font.getlength(row) for row in self._rows)) + 2 * self._gap
        self._top = round(3.4 * self._font_px)
        self._right = 5 * self._font_px
        self._small = [
            (
                shrink(column.frame.image, self._panel),
                shrink_labels(column.image_labels, self._panel),
                shrink_labels(column.frame.labels, self._panel),
            )
            for column in columns
        ]

    def draw(self) -> Image:
        width = self._left + len(self._columns) * (self._panel[1] + self._gap) + self._right
        bottom = self._top + len(self._rows) * (self._panel[0] + self._gap)
        legend = list(self._legend(width))
        rows = 1 + max((row for row, *_ in legend), default=-1)
        canvas = PIL.Image.new("RGB", (width, bottom + round(1.8 * self._font_px) * rows + self._gap), _PAPER)
        pen = ImageDraw.Draw(canvas)
        for row, name in enumerate(self._rows):
            middle = self._line(row) + self._panel[0] / 2
            pen.text((self._left - 2 * self._gap, middle), name, _INK, self._font, anchor="rm")
        for index in range(len(self._columns)):
            self._draw_column(canvas, pen, index)
        self._draw_scale(canvas, pen)
        for row, left, name, colour in legend:
            top, side = bottom + self._gap + row * round(1.8 * self._font_px), self._font_px
            pen.rounded_rectangle((left, top, left + side, top + side), side // 5, colour)
            pen.text((left + 1.5 * side, top + side / 2), name, _INK, self._font, anchor="lm")
        return np.asarray(canvas)

    def _draw_column(self, canvas: PIL.Image.Image, pen: ImageDraw.ImageDraw, index: int) -> None:
        frame, left = self._columns[index].frame, self._left + index * (self._panel[1] + self._gap)
        percentage = 100 * (frame.updated_fraction or 0)
        what = "keyframe" if frame.is_keyframe else f"{percentage:.{1 if percentage >= 1 else 2}f} % updated"
        titles = ((f"frame {frame.index} · {frame.time_s:.2f} s", _INK), (what, _FAINT))
        for line, (title, colour) in enumerate(titles):
            pen.text((left, (0.6 + 1.3 * line) * self._font_px), title, colour, self._font)
        for row, panel in zip(range(len(self._rows)), self._panels(index), strict=False):
            if panel is not None:
                canvas.paste(PIL.Image.fromarray(panel), (left, self._line(row)))
                continue
            box = (left, self._line(row), left + self._panel[1] - 1, self._line(row) + self._panel[0] - 1)
            pen.rectangle(box, _EMPTY)
            middle = (left + self._panel[1] / 2, self._line(row) + self._panel[0] / 2)
            pen.text(middle, "keyframe", _FAINT, self._font, anchor="mm")

    def _panels(self, index: int) -> Iterator[Image | None]:
        """Pictures of a column in the order of ``ROWS``; None where keyframes have nothing."""
        image, by_image, by_tfc = self._small[index]
        palette = self._labels.palette_array()
        yield image
        yield overlay(image, by_image, palette)
        yield overlay(image, by_tfc, palette)
        w = self._columns[index].frame.similarity
        if w is None:
            yield from (None, None)
            return
        # Cells with sharp edges.
        enlarged = np.asarray(cv2.resize(w, self._panel[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.float32)
        yield similarity_colours(enlarged)
        if self._threshold is not None:
            yield mark_difference(image, covered(enlarged < self._threshold, image.shape[:2]))

    def _draw_scale(self, canvas: PIL.Image.Image, pen: ImageDraw.ImageDraw) -> None:
        """Colours of the similarity beside its row, with the threshold."""
        height = self._panel[0]
        left = canvas.width - self._right + self._gap
        top = self._line(ROWS.index("similarity"))
        values = np.linspace(SCALE[1], SCALE[0], height, dtype=np.float32)[:, None].repeat(self._font_px, axis=1)
        canvas.paste(PIL.Image.fromarray(similarity_colours(values)), (left, top))
        ticks = {SCALE[1]: f"{SCALE[1]:.1f}", SCALE[0]: f"< {SCALE[0]:.1f}"}
        if self._threshold is not None and SCALE[0] < self._threshold < SCALE[1]:
            ticks[self._threshold] = f"{self._threshold:g}"
        for value, text in ticks.items():
            y = top + (SCALE[1] - value) / (SCALE[1] - SCALE[0]) * (height - 1)
            right = left + self._font_px
            pen.line((right, y, right + self._gap // 2, y), _INK)
            shown = min(max(y, top + self._font_px / 2), top + height - self._font_px / 2)
            pen.text((right + self._gap, shown), printable(text, self._font), _INK, self._font, anchor="lm")

    def _legend(self, width: int) -> Iterator[tuple[int, int, str, tuple[int, int, int]]]:
        """(row, left, name, colour) of each class that the panels show."""
        shown = [labels for small in self._small for labels in small[1:]]
        shares = np.mean([class_shares(labels, len(self._labels)) for labels in shown], axis=0)
        row, left = 0, self._left
        for index in np.flatnonzero(shares >= _MIN_SHARE).tolist():
            name = printable(self._labels.names[index], self._font)
            needed = math.ceil(1.5 * self._font_px + self._font.getlength(name)) + 2 * self._gap
            if left > self._left and left + needed > width:
                row, left = row + 1, self._left
            yield row, left, name, self._labels.palette[index]
            left += needed

    def _line(self, row: int) -> int:
        """Upper edge of a row of panels."""
        return self._top + row * (self._panel[0] + self._gap)


def similarity_colours(w: NDArray[np.float32]) -> Image:
    """Similarities (h, w) in colour: dark violet at the lower end of ``SCALE`` and below, yellow at 1."""
    share = np.clip((w - SCALE[0]) / (SCALE[1] - SCALE[0]), 0, 1)
    coloured = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(coloured[..., ::-1])
