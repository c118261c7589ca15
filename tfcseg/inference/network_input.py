"""Frames as the network takes them: resized, normalised, in one batch.

Letters: T frames, H W source image, H' W' network input.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tfcseg.model.options import SIZE_MULTIPLE
from tfcseg.shrinking import shrunk
from tfcseg.weights.loading import LoadedModel

logger = logging.getLogger(__name__)

MAX_ASPECT = 4
"""Longer pictures are squeezed to this aspect ratio: a 16×10,000 picture must not become a
480×300,000 network input."""


def network_size(source: tuple[int, int], size: int) -> tuple[int, int]:
    """Return the (height, width) of the network's input for a source of (height, width): short side ``size``, multiples
    of 32.

    Pictures are resized rather than padded: the distortion is at most 16 px, and there is no border that the network
    never saw in training.
    """
    scale = size / min(source)
    height, width = (
        max(1, round(min(side * scale, MAX_ASPECT * size) / SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in source
    )
    return height, width


def resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """An (H, W, 3) image at its `network_size`: shrunk over the areas that pixels cover, or fine patterns would
    flicker; enlarged linearly."""
    source = (image.shape[0], image.shape[1])
    resize = shrunk if min(source) > size else cv2.resize
    return np.asarray(resize(image, network_size(source, size)[::-1]), np.uint8)


class NetworkInput:
    """Makes batches for one model, whose usual short side is ``size``."""

    def __init__(self, model: LoadedModel, size: int) -> None:
        preprocessing = model.card.preprocessing
        self._device, self._dtype, self._size = model.device, model.precision, size
        mean, std = (np.array(numbers, np.float32) for numbers in (preprocessing.mean, preprocessing.std))
        values = np.arange(256, dtype=np.float32)[:, None]
        self._normalised: NDArray[np.float32] = np.divide(values - mean, std, dtype=np.float32)[None]
        """(1, 256, 3): normalised value of each pixel value in each channel."""
        self._source: tuple[int, int] | None = None

    def batch(self, images: Sequence[NDArray[np.uint8]], size: int | None = None) -> Tensor:
        """(T, 3, H', W') normalised, in channels-last order as the pixels come."""
        source = (images[0].shape[0], images[0].shape[1])
        short = size or self._size
        height, width = network_size(source, short)
        if short == self._size and source != self._source:
            self._source = source
            logger.info("network input %d×%d for frames of %d×%d", width, height, *source[::-1])
        batch = np.empty((len(images), height, width, 3), np.float32)
        for image, normalised in zip(images, batch, strict=True):
            cv2.LUT(resized(image, short), self._normalised, dst=normalised)
        return torch.from_numpy(batch).to(device=self._device, dtype=self._dtype).permute(0, 3, 1, 2)
