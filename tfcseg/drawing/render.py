"""Pictures of labels: colour maps, overlays and panels side by side.

Letters: H image height, W image width, K classes. Images are (H, W, 3) uint8 RGB, labels (H, W) uint8.
Everything here runs once per frame, so it works on uint8 tables and touches a full frame as few times as it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.legend import font_px_for, stamp, text_panel
from tfcseg.errors import UsageError
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.shrinking import shrunk

Image: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.uint8]

_MARK = (255, 64, 48)  # what changed, on dimmed gray
_DIMMED = 0.4


def colorize(labels: Labels, palette: NDArray[np.uint8]) -> Image:
    """(H, W) labels drawn in ``palette`` (K, 3); NO_CLASS is black."""
    table = np.zeros((256, 1, 3), dtype=np.uint8)
    table[: len(palette), 0] = palette
    return np.asarray(cv2.applyColorMap(labels, table), dtype=np.uint8)


def overlay(
    image: Image,
    labels: Labels,
    palette: NDArray[np.uint8],
    *,
    alpha: float = 0.55,
    visible: NDArray[np.bool_] | None = None,
) -> Image:
    """Tint the classes of ``image`` in ``palette`` (K, 3) at opacity ``alpha``, with thin dark lines between regions.

    Classes that are not ``visible`` (K,) and pixels without a class keep their original values, bit for bit. Raises
    UsageError if ``alpha`` is outside 0..1.
    """
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"overlay opacity is {alpha}; choose a value from 0 to 1")
    drawn = labels
    if visible is not None:
        table = np.full(256, NO_CLASS, dtype=np.uint8)
        table[: len(visible)][visible] = np.flatnonzero(visible)
        drawn = np.asarray(cv2.LUT(labels, table), dtype=np.uint8)
    untouched = cv2.threshold(drawn, len(palette) - 1, 255, cv2.THRESH_BINARY)[1]
    has_untouched = cv2.countNonZero(untouched) > 0
    # The morphological gradient (maximum - minimum) is zero where all labels under the kernel are the same.
    gradient = cv2.morphologyEx(drawn, cv2.MORPH_GRADIENT, _square(_line_px(labels) + 1))
    lines = cv2.threshold(gradient, 0, 255, cv2.THRESH_BINARY)[1]
    if has_untouched:  # whose side of a line is restored below: draw the line inside the tinted region
        lines = np.maximum(lines, cv2.dilate(untouched, _square(2 * _line_px(labels) + 1)))
    # NO_CLASS is the greatest value and black in the table: the maximum turns boundary pixels into dark lines.
    out = colorize(np.maximum(drawn, lines), palette)
    cv2.addWeighted(image, 1.0 - alpha, out, alpha, 0.0, dst=out)
    if has_untouched:
        cv2.copyTo(image, untouched, out)
    return out


def class_shares(labels: Labels, num_classes: int) -> NDArray[np.float64]:
    """(K,) share of all pixels of each class; they sum to less than 1 if some pixels have no class."""
    counts = cv2.calcHist([labels], [0], None, [256], [0.0, 256.0])
    return np.asarray(counts, dtype=np.float64).ravel()[:num_classes] / labels.size


def side_by_side(images: Sequence[Image], titles: Sequence[str]) -> Image:
    """``images`` of one height from left to right, each with its title in the upper left corner ("" for none)."""
    height = images[0].shape[0]
    gap = 2 * max(1, round(height / 360))
    width = sum(image.shape[1] for image in images) + gap * (len(images) - 1)
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    left = 0
    for image, title in zip(images, titles, strict=True):
        tile = canvas[:, left : left + image.shape[1]]
        tile[...] = image
        font_px = font_px_for(tile.shape[:2])
        if title.strip() and font_px is not None:
            panel = text_panel(title, font_px, tile.shape[1] - 2 * font_px)
            stamp(tile, panel, top=font_px // 2, left=font_px // 2)
        left += image.shape[1] + gap
    return canvas


def shrink(picture: Image, size: tuple[int, int]) -> Image:
    """``picture`` at ``size`` (height, width), each pixel the mean of what it covers."""
    return shrunk(picture, size[::-1])


def shrink_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """``labels`` at ``size`` (height, width), each pixel one of those that it covers."""
    return np.asarray(cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def covered(is_marked: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Share of each pixel of a smaller or equal ``size`` (h, w) that is marked in (H, W): (h, w), 0 to 255."""
    return shrunk(np.multiply(is_marked, 255, dtype=np.uint8), size[::-1])


def mark_difference(image: Image, coverage: NDArray[np.uint8]) -> Image:
    """``image`` in dim gray, with what is `covered` by differences (H, W) in red."""
    # Twice the covered share, so that lines thinner than a pixel stay visible.
    share = np.minimum(2 / 255 * coverage.astype(np.float32), 1)[..., None]
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None] * _DIMMED
    marked = gray * (1 - share) + np.array(_MARK, np.float32) * share
    return np.asarray(np.rint(marked), dtype=np.uint8)


def _line_px(labels: Labels) -> int:
    """Width of a boundary line: one pixel up to 1080p, two in 4K."""
    width_px: int = max(1, round(min(labels.shape) / 960))
    return width_px


def _square(side_px: int) -> NDArray[np.uint8]:
    return np.ones((side_px, side_px), dtype=np.uint8)
