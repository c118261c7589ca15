"""Shrink images fast. Shapes: H W image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def shrunk(image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink an image (H, W) or (H, W, 3) to ``size_wh``: means over the areas that its pixels cover.

    Where `halved` has a part in it, values differ from those of `cv2.INTER_AREA` alone: in smooth pictures by a few
    levels, in fine noise by up to 60.
    """
    return np.asarray(cv2.resize(halved(image, size_wh), size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def halved(image: NDArray[np.uint8], least_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Halve an image as long as its sides are even and it stays at least as large as ``least_wh``.

    OpenCV averages 2×2 pixels much faster than areas of any other size: with them, the way from 4K to 270 px takes a
    fifth of the time.
    """
    while image.shape[0] % 2 == image.shape[1] % 2 == 0:
        half_wh = (image.shape[1] // 2, image.shape[0] // 2)
        if half_wh[0] < least_wh[0] or half_wh[1] < least_wh[1]:
            break
        image = np.asarray(cv2.resize(image, half_wh, interpolation=cv2.INTER_AREA), np.uint8)
    return image
