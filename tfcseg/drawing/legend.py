"""Text on pictures: the font, lines of text on a backing, and the legend of a video.

Letters: H image height, W image width, K classes. Images are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Image

_MIN_FONT_PX = 10
_SUPERSAMPLING = 4  # Pillow draws shapes without anti-aliasing, so draw them larger, then average
_BACKING = (16, 18, 22, 176)  # RGBA behind text: dark enough for white text on snow, thin enough to see through
_CHIP_EDGE = (132, 134, 138, 255)  # separates chips of dark and gray classes from the backing


class Panel(NamedTuple):
    """A small picture that shines through."""

    colour: Image  # (h, w, 3) already multiplied by its opacity
    keep: Image  # (h, w, 3) share of the picture that shines through, 0..255


def stamp(image: Image, panel: Panel, *, top: int, left: int) -> None:
    """Draw ``panel`` on ``image`` in place, with its upper left corner there."""
    height, width = panel.colour.shape[:2]
    region = image[top : top + height, left : left + width]
    region[...] = cv2.add(cv2.multiply(region, panel.keep, scale=1 / 255), panel.colour)


@lru_cache(maxsize=512)
def text_panel(
    text: str, font_px: int, max_width: int, chip: tuple[int, int, int] | None = None, *, is_dim: bool = False
) -> Panel:
    """One line of ``text`` on a rounded half-transparent backing, behind a ``chip`` of a colour if there is one."""
    font, height, padding = load_font(font_px), row_px_of(font_px), font_px // 2
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
    return Panel(premultiplied, np.repeat(255 - rgba[..., 3:], 3, axis=2))


@cache
def load_font(font_px: int) -> ImageFont.FreeTypeFont:
    """The font of all drawings."""
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(font_px))


def font_px_for(size: tuple[int, int]) -> int | None:
    """Text height that suits a frame of ``size`` (H, W); None where no text would be legible."""
    if size[0] < 14 * _MIN_FONT_PX or size[1] < 16 * _MIN_FONT_PX:
        return None
    return max(_MIN_FONT_PX, round(min(size) / 40))


def row_px_of(font_px: int) -> int:
    """Height of a line of text on its backing."""
    return round(font_px * 1.5)


def printable(text: str, font: ImageFont.FreeTypeFont) -> str:
    """``text`` on one line in letters that ``font`` has: accents are dropped, other letters become question marks."""
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


_MIN_SHARE = 0.0002  # of the frame, the size from which a class is listed: 4×4 pixels of 320×240, 20×20 of 1080p
_KEPT_FRAMES = 30  # for which a class that left keeps its place
_STAY_FACTOR = 1.5  # if there are more classes than places, listed ones count this much more


class Legend:
    """Names and colours of visible classes, in the lower left corner of frames of one ``size`` (H, W).

    A class appears with a visible area and disappears with its last pixel. Rows do not move meanwhile: a new class
    takes a free place, and one that left keeps its place for a second. The classes of ``always`` stay, dimmed when they
    are not in the frame. Use one legend per video; frames too small for legible text get none.
    """

    def __init__(self, label_set: LabelSet, size: tuple[int, int], always: Sequence[int] = ()) -> None:
        self._label_set, self._size, self._always = label_set, size, tuple(always)
        self._font_px = font_px_for(size) or 0
        self._names: Sequence[str] = label_set.names
        self._places: dict[int, int] = {}  # row of each class: 0 is the lowest; on upwards, then in the next column
        self._absent: dict[int, int] = {}  # for how many frames a class with a place has been missing
        self.shown: tuple[int, ...] = ()

    def draw(self, image: Image, shares: NDArray[np.float64], names: Sequence[str] = ()) -> None:
        """Draw on ``image`` in place, given the (K,) ``shares`` of its classes (zero for those that are not drawn), and
        their ``names`` if they are others in this frame."""
        if not self._font_px:
            return
        self._names = names or self._label_set.names
        margin, row_px = self._font_px // 2, row_px_of(self._font_px)
        listed = self._always or range(len(self._label_set))
        column_px = max(self._row(index).colour.shape[1] for index in listed) + self._font_px // 3
        rows = (self._size[0] // 2) // row_px
        self._assign(shares, rows * max(1, (self._size[1] - margin) // column_px))
        for index in self.shown:
            column, above = divmod(self._places[index], rows)
            top = self._size[0] - margin - (above + 1) * row_px
            stamp(image, self._row(index, is_dim=shares[index] <= 0), top=top, left=margin + column * column_px)

    def state(self) -> dict[str, Any]:
        """State of the legend in JSON types."""
        return {"places": [*self._places.items()], "absent": [*self._absent.items()], "shown": list(self.shown)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``."""
        self._places, self._absent = dict(state["places"]), dict(state["absent"])
        self.shown = tuple(state["shown"])

    def _assign(self, shares: NDArray[np.float64], places: int) -> None:
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

    def _row(self, index: int, *, is_dim: bool = False) -> Panel:
        name, colour = self._names[index], self._label_set.palette[index]
        return text_panel(name, self._font_px, self._size[1] // 2, colour, is_dim=is_dim)
