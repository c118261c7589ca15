"""Draw the pictures of a moment for the page from saved data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import Image, mark_difference, overlay
from tfcseg.report.moments import Moment

PICTURE_PX = 320
"""Longest side of a picture on a page."""

_QUALITY = 82
_TINT = 0.65


class DrawnMoment(NamedTuple):
    """A moment with its pictures, JPEG files of one size by their titles."""

    moment: Moment
    pictures: dict[str, bytes]


def draw_moment(moment: Moment, palette: NDArray[np.uint8], *, is_doubt: bool = False) -> DrawnMoment:
    """``moment`` with pictures whose classes are tinted in ``palette`` (K, 3); a doubt is about unsure labels."""
    decoded = np.asarray(cv2.imdecode(np.frombuffer(moment.source, np.uint8), cv2.IMREAD_COLOR), dtype=np.uint8)
    image = np.ascontiguousarray(decoded[..., ::-1])
    before, after = (overlay(image, labels, palette, alpha=_TINT) for labels in (moment.before, moment.after))
    marked = mark_difference(image, moment.changed)
    pictures = {"Frame": image} | (
        {"Labels": after, "Likely wrong": marked}
        if is_doubt
        else {"Labels before": before, "Labels after": after, "What changed": marked}
    )
    return DrawnMoment(moment, {title: encode_jpeg(picture, _QUALITY) for title, picture in pictures.items()})


def picture_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width) of a picture on the page, of one that begins with ``size`` (height, width)."""
    scale = min(1.0, PICTURE_PX / max(size[:2]))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def encode_jpeg(picture: Image, quality: int) -> bytes:
    """JPEG file of ``picture`` (H, W, 3), ``quality`` 0 to 100."""
    encoded: bytes = cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
    return encoded
