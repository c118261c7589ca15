"""Pictures of a moment for the page, drawn from what was kept of it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import Image, mark_difference, overlay
from tfcseg.report.moments import Moment

_QUALITY = 82
_TINT = 0.65


class DrawnMoment(NamedTuple):
    """A moment with its pictures, JPEG files of one size."""

    moment: Moment
    source: bytes
    """The frame as it was filmed."""
    before: bytes
    """The frame tinted with the labels of the frame before."""
    after: bytes
    """The frame tinted with its own labels."""
    changed: bytes
    """Where the two differ."""


def draw_moment(moment: Moment, palette: NDArray[np.uint8]) -> DrawnMoment:
    """``moment`` with pictures whose classes are tinted in ``palette`` (K, 3)."""
    decoded = np.asarray(cv2.imdecode(np.frombuffer(moment.source, np.uint8), cv2.IMREAD_COLOR), dtype=np.uint8)
    image = np.ascontiguousarray(decoded[..., ::-1])
    tinted = [overlay(image, labels, palette, alpha=_TINT) for labels in (moment.before, moment.after)]
    changed = mark_difference(image, moment.changed)
    return DrawnMoment(moment, *(encode_jpeg(picture, _QUALITY) for picture in (image, *tinted, changed)))


def encode_jpeg(picture: Image, quality: int) -> bytes:
    """JPEG file of ``picture`` (H, W, 3), ``quality`` 0 to 100."""
    encoded: bytes = cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
    return encoded
