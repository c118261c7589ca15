"""Pictures of labels: colour maps, overlays, the legend and panels side by side.

Letters: H image height, W image width, K classes. Images are (H, W, 3) uint8 RGB, labels (H, W) uint8.
Everything here runs once per frame, so it works on uint8 tables and touches a full frame as few times as it can.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeAlias, cast

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from tfcseg.errors import DataError, UsageError
from tfcseg.labels.label_sets import NO_CLASS, LabelSet

Image: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.uint8]

LEGEND_ROWS = 10
_SMOOTHING = 0.1  # weight of the current frame in a class's smoothed share: settles within about half a second
_MIN_SHARE = 0.01  # of the frame, smoothed: below it a class does not enter the legend
_STAY_FACTOR = 1.5  # a class that is shown counts for this much more, so that two near the limit do not alternate
_MIN_FONT_PX = 10
_SUPERSAMPLING = 4  # Pillow draws shapes without anti-aliasing: draw them larger, then average
_BACKING = (16, 18, 22, 176)  # RGBA behind text: dark enough for white text on snow, thin enough to see through
_MARK = (255, 64, 48)  # what changed, on dimmed gray
_DIMMED = 0.4
_CHIP_EDGE = (132, 134, 138, 255)  # keeps chips of dark and gray classes apart from the backing


def colorize(labels: Labels, palette: NDArray[np.uint8]) -> Image:
    """(H, W) labels drawn in ``palette`` (K, 3); NO_CLASS is black."""
    return np.asarray(cv2.applyColorMap(labels, _colour_table(palette)), dtype=np.uint8)


def overlay(
    image: Image,
    labels: Labels,
    palette: NDArray[np.uint8],
    *,
    alpha: float = 0.55,
    visible: NDArray[np.bool_] | None = None,
) -> Image:
    """``image`` with its classes tinted in ``palette`` (K, 3) at opacity ``alpha``, a thin dark line between regions.

    Classes that are not ``visible`` (K,) and pixels without a class keep their original values, bit for bit.
    Raises UsageError if ``alpha`` is outside 0..1 and DataError if labels and image differ in size.
    """
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"overlay opacity is {alpha}; choose a value from 0 to 1")
    if labels.shape != image.shape[:2]:
        raise DataError(f"labels of size {labels.shape} do not fit an image of size {image.shape[:2]}")
    drawn = labels if visible is None else np.asarray(cv2.LUT(labels, _visible_table(visible)), dtype=np.uint8)
    untouched = cv2.threshold(drawn, len(palette) - 1, 255, cv2.THRESH_BINARY)[1]
    has_untouched = cv2.countNonZero(untouched) > 0
    lines = _boundaries(drawn)
    if has_untouched:  # whose side of a line is restored below: draw the line inside the tinted region
        lines = np.maximum(lines, cv2.dilate(untouched, _square(2 * _line_px(labels) + 1)))
    # NO_CLASS is the greatest value and black in the table: the maximum turns boundary pixels into dark lines.
    out = colorize(np.maximum(drawn, lines), palette)
    cv2.addWeighted(image, 1.0 - alpha, out, alpha, 0.0, dst=out)
    if has_untouched:
        cv2.copyTo(image, untouched, out)
    return out


def class_shares(labels: Labels, num_classes: int) -> NDArray[np.float64]:
    """(K,) share of all pixels that each class covers; they add up to less than 1 where pixels have no class."""
    counts = cv2.calcHist([labels], [0], None, [256], [0.0, 256.0])
    return np.asarray(counts, dtype=np.float64).ravel()[:num_classes] / labels.size


def side_by_side(images: Sequence[Image], titles: Sequence[str]) -> Image:
    """``images`` of one height from left to right, each with its title in the upper left corner ("" for none).

    Raises UsageError if there is not one title per image or the heights differ.
    """
    if not images or len(images) != len(titles):
        raise UsageError(f"{len(images)} images and {len(titles)} titles; give one title per image")
    height = images[0].shape[0]
    if any(image.shape[0] != height for image in images):
        raise UsageError(f"images of heights {[image.shape[0] for image in images]} cannot stand side by side")
    gap = 2 * max(1, round(height / 360))
    width = sum(image.shape[1] for image in images) + gap * (len(images) - 1)
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    left = 0
    for image, title in zip(images, titles, strict=True):
        tile = canvas[:, left : left + image.shape[1]]
        tile[...] = image
        font_px = _font_px(tile.shape[:2])
        if title.strip() and font_px is not None:
            _stamp(tile, _title_panel(title, font_px, tile.shape[1] - 2 * font_px), top=font_px // 2, left=font_px // 2)
        left += image.shape[1] + gap
    return canvas


def shrink(picture: Image, size: tuple[int, int]) -> Image:
    """``picture`` at ``size`` (height, width), each pixel the mean of what it covers."""
    if picture.shape[:2] == size:
        return picture
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)


def shrink_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """``labels`` at ``size`` (height, width), each pixel one of those that it covers."""
    if labels.shape == size:
        return labels
    return np.asarray(cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def covered(is_marked: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.uint8]:
    """How much of each pixel of a smaller or equal ``size`` (h, w) is marked in (H, W): (h, w), 0 to 255."""
    marked = np.multiply(is_marked, 255, dtype=np.uint8)
    return np.asarray(cv2.resize(marked, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)


def mark_difference(image: Image, coverage: NDArray[np.uint8]) -> Image:
    """``image`` in dim gray, what is `covered` by differences (H, W) in red."""
    # Twice the covered share: lines thinner than a pixel of the picture must not fade away.
    share = np.minimum(2 / 255 * coverage.astype(np.float32), 1)[..., None]
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None] * _DIMMED
    marked = gray * (1 - share) + np.array(_MARK, np.float32) * share
    return np.asarray(np.rint(marked), dtype=np.uint8)


class Legend:
    """Names and colours of what is on screen, in the lower left corner of frames of one ``size`` (H, W).

    One per video: it remembers smoothed shares, so that a class enters or leaves when it really comes or goes, and rows
    stand in class order, so that they never swap places. Frames too small for legible text get no legend.
    """

    def __init__(self, label_set: LabelSet, size: tuple[int, int]) -> None:
        self._label_set = label_set
        self._size = size
        self._font_px = _font_px(size)
        self._shares: NDArray[np.float64] | None = None
        self._panel: _Panel | None = None
        self.shown: tuple[int, ...] = ()

    def draw(self, image: Image, shares: NDArray[np.float64]) -> None:
        """Draw on ``image`` in place, given the (K,) ``shares`` of its classes (zero for those that are not drawn)."""
        if self._font_px is None:
            return
        shown = self._select(shares, self._font_px)
        if shown != self.shown:
            self.shown = shown
            self._panel = self._draw_panel(self._font_px) if shown else None
        if self._panel is not None:
            margin = self._font_px // 2
            _stamp(image, self._panel, top=self._size[0] - margin - self._panel.colour.shape[0], left=margin)

    def state(self) -> dict[str, list[float] | list[int] | None]:
        """What it remembers of the frames so far, in JSON types."""
        return {"shares": None if self._shares is None else self._shares.tolist(), "shown": list(self.shown)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self._shares = None if state["shares"] is None else np.array(state["shares"], np.float64)
        self.shown = tuple(state["shown"])
        if self.shown and self._font_px is not None:
            self._panel = self._draw_panel(self._font_px)

    def _select(self, shares: NDArray[np.float64], font_px: int) -> tuple[int, ...]:
        if self._shares is None:
            self._shares = shares.astype(np.float64)
        self._shares = self._shares + _SMOOTHING * (shares - self._shares)
        score = self._shares.copy()
        score[list(self.shown)] *= _STAY_FACTOR
        rows = min(LEGEND_ROWS, (self._size[0] // 2) // _row_px(font_px))
        best = np.argsort(-score, kind="stable")[:rows]
        return tuple(sorted(int(index) for index in best if score[index] >= _MIN_SHARE))

    def _draw_panel(self, font_px: int) -> _Panel:
        names = [self._label_set.names[index] for index in self.shown]
        colours = [self._label_set.palette[index] for index in self.shown]
        return _draw_panel(names, colours, font_px, max_width=self._size[1] // 2)


def _colour_table(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(256, 1, 3) lookup table; black beyond the palette."""
    table = np.zeros((256, 1, 3), dtype=np.uint8)
    table[: len(palette), 0] = palette
    return table


def _visible_table(visible: NDArray[np.bool_]) -> NDArray[np.uint8]:
    table = np.full(256, NO_CLASS, dtype=np.uint8)
    table[: len(visible)][visible] = np.flatnonzero(visible)
    return table


def _boundaries(labels: Labels) -> NDArray[np.uint8]:
    """(H, W) 255 on a line between regions, else 0."""
    # The morphological gradient (maximum - minimum) is zero where all labels under the kernel are the same.
    gradient = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, _square(_line_px(labels) + 1))
    return np.asarray(cv2.threshold(gradient, 0, 255, cv2.THRESH_BINARY)[1], dtype=np.uint8)


def _line_px(labels: Labels) -> int:
    """Width of a boundary line: one pixel up to 1080p, two in 4K."""
    width_px: int = max(1, round(min(labels.shape) / 960))
    return width_px


def _square(side_px: int) -> NDArray[np.uint8]:
    return np.ones((side_px, side_px), dtype=np.uint8)


class _Panel(NamedTuple):
    colour: Image  # (h, w, 3) already multiplied by its opacity
    keep: Image  # (h, w, 3) share of the picture that shines through, 0..255


def _stamp(image: Image, panel: _Panel, *, top: int, left: int) -> None:
    height, width = panel.colour.shape[:2]
    region = image[top : top + height, left : left + width]
    region[...] = cv2.add(cv2.multiply(region, panel.keep, scale=1 / 255), panel.colour)


@lru_cache(maxsize=16)
def _title_panel(title: str, font_px: int, max_width: int) -> _Panel:
    return _draw_panel([title], [], font_px, max_width)


def _draw_panel(texts: Sequence[str], chips: Sequence[tuple[int, int, int]], font_px: int, max_width: int) -> _Panel:
    """Rows of text on a rounded half-opaque backing, each behind a colour chip if there are ``chips``."""
    font, row_px, padding = load_font(font_px), _row_px(font_px), font_px // 2
    text_left = padding + (round(font_px * 1.4) if chips else 0)
    lines = [_shorten(printable(text, font), font, max_width - text_left - padding) for text in texts]
    width = text_left + math.ceil(max(font.getlength(line) for line in lines)) + padding
    height = row_px * len(lines) + padding
    tops = [padding // 2 + row * row_px for row in range(len(lines))]

    large = PIL.Image.new("RGBA", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    shapes = ImageDraw.Draw(large)
    shapes.rounded_rectangle((0, 0, large.width - 1, large.height - 1), padding * _SUPERSAMPLING * 0.7, _BACKING)
    for top, colour in zip(tops, chips, strict=False):
        box = (padding, top + (row_px - font_px) / 2, padding + font_px, top + (row_px + font_px) / 2)
        scaled = tuple(edge * _SUPERSAMPLING for edge in box)
        shapes.rounded_rectangle(scaled, font_px * _SUPERSAMPLING * 0.2, (*colour, 255), _CHIP_EDGE, _SUPERSAMPLING)
    panel = large.resize((width, height), PIL.Image.Resampling.BOX)
    writer = ImageDraw.Draw(panel)
    for top, line in zip(tops, lines, strict=True):
        writer.text((text_left, top + row_px / 2), line, (255, 255, 255, 255), font, anchor="lm")

    rgba = np.asarray(panel)
    opacity = rgba[..., 3:].astype(np.uint16)
    premultiplied = (rgba[..., :3] * opacity // 255).astype(np.uint8)
    return _Panel(premultiplied, np.repeat(255 - rgba[..., 3:], 3, axis=2))


@cache
def load_font(font_px: int) -> ImageFont.FreeTypeFont:
    """The font of everything that is drawn."""
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(font_px))


def _font_px(size: tuple[int, int]) -> int | None:
    """Text height that suits a frame of ``size`` (H, W); None where no text would be legible."""
    if size[0] < 14 * _MIN_FONT_PX or size[1] < 16 * _MIN_FONT_PX:
        return None
    return max(_MIN_FONT_PX, round(min(size) / 40))


def _row_px(font_px: int) -> int:
    return round(font_px * 1.5)


def printable(text: str, font: ImageFont.FreeTypeFont) -> str:
    """``text`` on one line in letters that ``font`` has: accents dropped, anything else a question mark."""
    missing = bytes(font.getmask("\uffff"))
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in letters).split())
    return "".join("?" if bytes(font.getmask(letter)) == missing else letter for letter in line)


def _shorten(text: str, font: ImageFont.FreeTypeFont, max_width: int) -> str:
    if font.getlength(text) <= max_width:
        return text
    while text and font.getlength(text + "…") > max_width:
        text = text[:-1]
    return text.rstrip() + "…"
