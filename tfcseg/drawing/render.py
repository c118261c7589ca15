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

_MIN_SHARE = 0.0002  # of the frame, from which a class is seen: 4×4 pixels of 320×240, 20×20 of 1080p
_KEPT_FRAMES = 30  # that the place of a class which left is kept for it
_STAY_FACTOR = 1.5  # where there are more classes than places, those that are shown count for this much more
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
            panel = _text_panel(title, font_px, tile.shape[1] - 2 * font_px)
            _stamp(tile, panel, top=font_px // 2, left=font_px // 2)
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

    A class comes with an area that can be seen and goes with its last pixel. Its row keeps its place meanwhile, so that
    nothing else moves: what comes takes a place that is free, and what goes keeps its own for a second. The classes of
    ``always`` stay, dim where they are not in the frame. One legend per video; frames too small for legible text get
    none.
    """

    def __init__(self, label_set: LabelSet, size: tuple[int, int], always: Sequence[int] = ()) -> None:
        self._label_set = label_set
        self._size = size
        self._always = tuple(always)
        self._font_px = _font_px(size)
        self._places: dict[int, int] = {}
        """Row of each class: 0 is the lowest, then upwards and on in the next column."""
        self._absent: dict[int, int] = {}
        """For how many frames a class with a place has not been in the frame."""
        self.shown: tuple[int, ...] = ()

    def draw(self, image: Image, shares: NDArray[np.float64]) -> None:
        """Draw on ``image`` in place, given the (K,) ``shares`` of its classes (zero for those that are not drawn)."""
        if self._font_px is None:
            return
        margin, row_px, column_px = self._font_px // 2, _row_px(self._font_px), self._column_px(self._font_px)
        rows = (self._size[0] // 2) // row_px
        self._assign(shares, rows * max(1, (self._size[1] - margin) // column_px))
        for index in self.shown:
            column, above = divmod(self._places[index], rows)
            panel = self._row(index, self._font_px, is_present=shares[index] > 0)
            top = self._size[0] - margin - (above + 1) * row_px
            _stamp(image, panel, top=top, left=margin + column * column_px)

    def state(self) -> dict[str, list[int]]:
        """What it remembers of the frames so far, in JSON types."""
        classes = sorted(self._places)
        return {
            "classes": classes,
            "places": [self._places[index] for index in classes],
            "absent": [self._absent[index] for index in classes],
            "shown": list(self.shown),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self._places = dict(zip(state["classes"], state["places"], strict=True))
        self._absent = dict(zip(state["classes"], state["absent"], strict=True))
        self.shown = tuple(state["shown"])

    def _assign(self, shares: NDArray[np.float64], places: int) -> None:
        """Decide what is shown in at most so many ``places``, and where."""
        least = np.full(len(shares), _MIN_SHARE)
        least[list(self.shown)] = 0
        worth = dict.fromkeys(self._always, 1.0) | {
            index: float(shares[index]) * (_STAY_FACTOR if index in self.shown else 1) + (index in self._always)
            for index in np.flatnonzero(shares > least).tolist()
        }
        kept = sorted(worth, key=lambda index: -worth[index])[:places]
        self.shown = tuple(sorted(kept))
        self._absent = {index: 0 if index in kept else self._absent[index] + 1 for index in self._places}
        new = [index for index in self.shown if index not in self._places]
        idle = sorted(self._places.keys() - set(kept), key=lambda index: -self._absent[index])
        missing = len(self._places) + len(new) - places
        for number, index in enumerate(idle):
            if self._absent[index] > _KEPT_FRAMES or number < missing:
                del self._places[index], self._absent[index]
        free = sorted(set(range(places)) - set(self._places.values()))
        for index, place in zip(reversed(new), free, strict=False):  # class order reads downwards
            self._places[index], self._absent[index] = place, 0

    def _row(self, index: int, font_px: int, *, is_present: bool) -> _Panel:
        name, colour = self._label_set.names[index], self._label_set.palette[index]
        return _text_panel(name, font_px, self._size[1] // 2, colour, is_dim=not is_present)

    def _column_px(self, font_px: int) -> int:
        """Width of the widest row that there may be, and a gap."""
        indices = self._always or range(len(self._label_set))
        widest_px: int = max(self._row(index, font_px, is_present=True).colour.shape[1] for index in indices)
        return widest_px + font_px // 3


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


@lru_cache(maxsize=512)
def _text_panel(
    text: str, font_px: int, max_width: int, chip: tuple[int, int, int] | None = None, *, is_dim: bool = False
) -> _Panel:
    """One line of ``text`` on a rounded half-opaque backing, behind a ``chip`` of a colour if there is one."""
    font, height, padding = load_font(font_px), _row_px(font_px), font_px // 2
    text_left = padding + (round(font_px * 1.4) if chip else 0)
    line = _shorten(printable(text, font), font, max_width - text_left - padding)
    width = text_left + math.ceil(font.getlength(line)) + padding

    large = PIL.Image.new("RGBA", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    shapes = ImageDraw.Draw(large)
    shapes.rounded_rectangle((0, 0, large.width - 1, large.height - 1), padding * _SUPERSAMPLING * 0.7, _BACKING)
    if chip:
        box = (padding, (height - font_px) / 2, padding + font_px, (height + font_px) / 2)
        scaled = tuple(edge * _SUPERSAMPLING for edge in box)
        fill = None if is_dim else (*chip, 255)
        edge = (*chip, 255) if is_dim else _CHIP_EDGE
        shapes.rounded_rectangle(scaled, font_px * _SUPERSAMPLING * 0.2, fill, edge, _SUPERSAMPLING)
    panel = large.resize((width, height), PIL.Image.Resampling.BOX)
    ink = (150, 152, 156, 255) if is_dim else (255, 255, 255, 255)
    ImageDraw.Draw(panel).text((text_left, height / 2), line, ink, font, anchor="lm")

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
