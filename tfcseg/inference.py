"""One interval of frames through the network: preprocess → model → labels.

Letters: T frames, H W source image, h w grid of the logits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tfcseg.errors import TfcsegError, UsageError
from tfcseg.model.config import CORRELATIONS, KEYFRAME_POSITIONS, MODES, SIZE_MULTIPLE
from tfcseg.model.label_map import labels_from_logits
from tfcseg.model.tfc import Keyframe
from tfcseg.weights import LoadedModel

MAX_ASPECT = 4
"""Longer pictures are squeezed to it: a 16×10,000 strip must not become a 480×300,000 network input."""


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """How frames go through the network; ``checked_options`` fills in the model's defaults."""

    mode: str
    keyframe_interval: int
    threshold: float
    size: int
    """Short side of the network's input in px."""
    correlation: str
    """``paper`` or ``aligned``."""
    keyframe_position: str
    """``first`` or ``middle`` of the interval."""

    def keyframe_of(self, frames: int) -> int:
        """Index of the keyframe among the ``frames`` of an interval (the last one of a video may be shorter)."""
        middle = self.keyframe_interval // 2 if self.keyframe_position == "middle" else 0
        return min(middle, frames - 1)

    @property
    def uses_memory(self) -> bool:
        """Whether there are frames between keyframes at all."""
        return self.mode != "image" and self.keyframe_interval > 1


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """What the network says about one frame."""

    labels: NDArray[np.uint8]
    """(H, W) class indices at the source's size."""
    is_keyframe: bool
    similarity: NDArray[np.float32] | None
    """w_t (h, w) in [-1, 1]; None at keyframes."""
    updated_fraction: float | None
    """Share of points repaired by sparse MSDA; None at keyframes."""
    model_ms: float
    """Preprocessing, network and labels; frames computed together share their time equally."""


def checked_options(
    model: LoadedModel,
    *,
    mode: str = "tfc",
    keyframe_interval: int | None = None,
    threshold: float | None = None,
    size: int | None = None,
    correlation: str | None = None,
    keyframe_position: str | None = None,
) -> InferenceOptions:
    """Options with the model's defaults for what is None; UsageError for values that make no sense."""
    config = model.card.config
    interval = config.keyframe_interval if keyframe_interval is None else keyframe_interval
    limit = config.threshold if threshold is None else threshold
    side = model.card.preprocessing.size if size is None else size
    if mode not in MODES:
        raise UsageError(f"no mode {mode!r}; there are {', '.join(MODES)}")
    matching = config.correlation if correlation is None else correlation
    if matching not in CORRELATIONS:
        raise UsageError(f"no correlation {matching!r}; there are {', '.join(CORRELATIONS)}")
    position = config.keyframe_position if keyframe_position is None else keyframe_position
    if position not in KEYFRAME_POSITIONS:
        raise UsageError(f"no keyframe position {position!r}; there are {', '.join(KEYFRAME_POSITIONS)}")
    if not 1 <= interval <= 1000:
        raise UsageError(f"a keyframe interval of {interval} is not between 1 and 1000")
    if not 0.0 <= limit <= 1.0:
        raise UsageError(f"a threshold of {limit:g} is not between 0 and 1")
    if not SIZE_MULTIPLE <= side <= 4096:
        raise UsageError(f"a network input of {side} px is not between {SIZE_MULTIPLE} and 4096")
    return InferenceOptions(mode, 1 if mode == "image" else interval, limit, side, matching, position)


def network_size(source: tuple[int, int], size: int) -> tuple[int, int]:
    """(height, width) of the network's input for a source of (height, width): short side ``size``, multiples of 32.

    The picture is resized to it rather than padded: at most 16 px of distortion, no border that the network never saw.
    """
    scale = size / min(source)
    height, width = (
        max(1, round(min(side * scale, MAX_ASPECT * size) / SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in source
    )
    return height, width


class IntervalNetwork:
    """Runs intervals of frames of any length through a model; holds nothing from one interval to the next.

    On a GPU that runs out of memory the frames between keyframes are computed in halves, down to one at a time.
    """

    def __init__(self, model: LoadedModel, options: InferenceOptions) -> None:
        self._network = model.network
        self._device, self._dtype = model.device, model.precision
        self.options = options
        preprocessing = model.card.preprocessing
        self._mean = torch.tensor(preprocessing.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=self._device).view(1, 3, 1, 1)
        self._batch = 16

    @torch.inference_mode()
    def run(self, images: Sequence[NDArray[np.uint8]], label_size: tuple[int, int] | None = None) -> list[FrameResult]:
        """Results for the frames of one interval, ``images`` ((H, W, 3) uint8 RGB), in their order.

        ``label_size`` (height, width) is that of the labels if it is not the images'. UsageError if these differ in
        size.
        """
        sizes = {(image.shape[0], image.shape[1]) for image in images}
        if len(sizes) > 1:
            shown = " and ".join(f"{height}×{width}" for height, width in sorted(sizes))
            raise UsageError(f"frames between two keyframes must have one size, not {shown} (height×width)")
        size = label_size or sizes.pop()
        if not self.options.uses_memory:
            return [self._alone(image, size) for image in images]
        key = self.options.keyframe_of(len(images))
        keyframe, memory = self._keyframe(images[key], size)
        others = [image for index, image in enumerate(images) if index != key]
        results: list[FrameResult] = []
        while len(results) < len(others):
            part = others[len(results) : len(results) + self._batch]
            try:
                results += self._non_keyframes(part, memory, size)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise self._too_large(part[0]) from None
                self._batch = len(part) // 2
        return [*results[:key], keyframe, *results[key:]]

    def _alone(self, image: NDArray[np.uint8], size: tuple[int, int]) -> FrameResult:
        """A frame that no other refers to: the image network, bit for bit the logits of a keyframe."""
        started_s = time.perf_counter()
        try:
            labels = _to_labels(self._network.image(self._to_network([image])), size)
        except torch.OutOfMemoryError:
            raise self._too_large(image) from None
        return FrameResult(labels[0], True, None, None, 1000 * (time.perf_counter() - started_s))

    def _keyframe(self, image: NDArray[np.uint8], size: tuple[int, int]) -> tuple[FrameResult, Keyframe]:
        started_s = time.perf_counter()
        try:
            logits, memory = self._network.keyframe(self._to_network([image]))
            labels = _to_labels(logits, size)
        except torch.OutOfMemoryError:
            raise self._too_large(image) from None
        elapsed_ms = 1000 * (time.perf_counter() - started_s)
        return FrameResult(labels[0], True, None, None, elapsed_ms), memory

    def _non_keyframes(
        self, images: Sequence[NDArray[np.uint8]], memory: Keyframe, size: tuple[int, int]
    ) -> list[FrameResult]:
        started_s = time.perf_counter()
        result = self._network.non_keyframes(
            self._to_network(images),
            memory,
            mode=self.options.mode,
            threshold=self.options.threshold,
            correlation=self.options.correlation,
        )
        labels = _to_labels(result.logits, size)
        similarity = result.similarity.float().cpu().numpy()
        updated = result.updated_fraction.cpu().tolist()
        elapsed_ms = 1000 * (time.perf_counter() - started_s) / len(images)
        return [FrameResult(labels[t], False, similarity[t], updated[t], elapsed_ms) for t in range(len(images))]

    def _to_network(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """(T, 3, H', W') normalised, in channels-last order as the pixels come."""
        height, width = network_size((images[0].shape[0], images[0].shape[1]), self.options.size)
        shrinks = min(images[0].shape[:2]) > self.options.size
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = np.stack([cv2.resize(image, (width, height), interpolation=how) for image in images])
        pixels = torch.from_numpy(resized).to(self._device).permute(0, 3, 1, 2)
        return ((pixels - self._mean) / self._std).to(self._dtype)

    def _too_large(self, image: NDArray[np.uint8]) -> TfcsegError:
        height, width = network_size((image.shape[0], image.shape[1]), self.options.size)
        return TfcsegError(
            f"the GPU has too little memory for one frame of {width}×{height}; use a smaller --size or --device cpu"
        )


def _to_labels(logits: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    labels: NDArray[np.uint8] = labels_from_logits(logits, size).cpu().numpy()
    return labels
