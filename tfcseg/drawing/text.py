"""Text on pictures: the font, and lines of text on a backing that can be read on any picture.

Letters: H image height, W image width. Images are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import math
import unicodedata
from functools import cache, lru_cache
from typing import NamedTuple, cast

import cv2
import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont

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
