"""Run one interval of frames through the network: preprocess → model → labels.

Letters: T frames, H W source image, h w grid of the logits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tfcseg.errors import TfcsegError, UsageError
from tfcseg.model.carry_over import Carried
from tfcseg.model.evidence import HandedOn
from tfcseg.model.ops.compiled import CompiledBackbone, compile_backbone
from tfcseg.model.ops.confidence import confidence_from_logits
from tfcseg.model.ops.label_map import labels_from_logits
from tfcseg.model.options import SIZE_MULTIPLE, InferenceOptions
from tfcseg.model.tfc import Keyframe
from tfcseg.weights.loading import LoadedModel

logger = logging.getLogger(__name__)

BATCH = 16
"""Maximum number of frames computed at once; bounds memory for long intervals."""

MAX_WORKERS = 4
"""Maximum number of intervals computed at the same time on a CPU; each needs its own memory."""

MAX_ASPECT = 4
"""Longer pictures are squeezed to this aspect ratio: a 16×10,000 picture must not become a
480×300,000 network input."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """The network's output for one frame."""

    labels: NDArray[np.uint8]
    """(H, W) class indices at the source's size."""
    is_keyframe: bool
    similarity: NDArray[np.float32] | None
    """w_t (h, w) in [-1, 1]; None at keyframes."""
    updated_fraction: float | None
    """Share of points updated by sparse MSDA; None at keyframes."""
    model_ms: float
    """Seconds for preprocessing, network and labels; frames computed together share their time equally."""
    confidence: NDArray[np.uint8] | None = None
    """(h, w) confidence of the labels: 255 times the probability that they are right."""
    carried: HandedOn | None = None
    """Carry-over for the next interval; only at the end of an interval, and if keyframes carry anything."""


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


class IntervalNetwork:
    """Runs intervals of frames of any length through a model; keeps no state between intervals.

    The caller passes on what an interval takes over from the one before: ``before`` is the last result's ``carried``,
    None at the start of a video.

    A GPU computes several intervals at once (several frames in mode ``image``). If it runs out of memory, it continues
    with one interval at a time, then halves the number of frames, down to one.
    """

    def __init__(self, model: LoadedModel, options: InferenceOptions) -> None:
        self.network = model.network
        self._device, self._dtype = model.device, model.precision
        self.options, self.labels = options, model.labels
        self._temperature = model.temperature
        preprocessing = model.card.preprocessing
        mean, std = (np.array(numbers, np.float32) for numbers in (preprocessing.mean, preprocessing.std))
        values = np.arange(256, dtype=np.float32)[:, None]
        self._normalised: NDArray[np.float32] = np.divide(values - mean, std, dtype=np.float32)[None]
        """(1, 256, 3): normalised value of each pixel value in each channel."""
        self._batch = BATCH
        # Single frames suit a CPU's caches, batches suit a GPU's many cores.
        self.chunk = BATCH if self._device.type == "cuda" else 1
        self.intervals_at_once = max(1, BATCH // options.keyframe_interval) if self._device.type == "cuda" else 1
        # Compiled code is made for one number of threads, and long intervals hold too many frames.
        is_compiled = options.compile or isinstance(model.network.backbone, CompiledBackbone)
        is_long = options.keyframe_interval > BATCH and options.sides == "one"
        is_alone = is_compiled or options.latency == "low" or is_long
        on_cpu = self._device.type == "cpu"
        self.workers = 1 if is_alone or not on_cpu else min(torch.get_num_threads(), MAX_WORKERS)
        self._source: tuple[int, int] | None = None
        logger.info(
            "mode %s: a keyframe every %d frames, the %s of its interval; %s correlation, threshold %g%s",
            *(options.mode, options.keyframe_interval, options.keyframe_position),
            *(options.correlation, options.threshold),
            f", carry {options.keyframe_carry:g}" if options.carries else "",
            extra={**asdict(options), "frames_at_once": self.frames_at_once},
        )

    def compile(self, source: tuple[int, int]) -> float:
        """Compile the network for frames of ``source`` (height, width). Returns the seconds it took; raises TfcsegError
        on failure."""
        keyframes = self.intervals_at_once if self.options.latency == "normal" else 1
        count = 1 if keyframes == 1 else self.frames_at_once
        return compile_backbone(self.network, self.to_input([np.zeros((*source, 3), np.uint8)] * count), keyframes)

    @property
    def frames_at_once(self) -> int:
        """How many frames to pass for full speed: whole intervals, or any number with both sides."""
        if self.options.sides == "both":
            return self.chunk
        return self.intervals_at_once * self.options.keyframe_interval

    def run_many(
        self,
        images: Sequence[NDArray[np.uint8]],
        before: HandedOn | None = None,
        label_size: tuple[int, int] | None = None,
    ) -> list[FrameResult]:
        """Compute the frames of one or several intervals; the last may be shorter.

        Raises UsageError if frames of an interval differ in size.
        """
        length = self.options.keyframe_interval
        results: list[FrameResult] = []
        while len(results) < len(images):
            rest = images[len(results) :]
            whole = min(len(rest) // length, self.intervals_at_once) * length
            is_many = whole > length and len({image.shape for image in rest[:whole]}) == 1
            together = self._together(rest[:whole], before, label_size) if is_many else None
            results += together if together is not None else self.run(rest[:length], label_size, before)
            before = results[-1].carried
        return results

    def stream(self, images: Iterable[NDArray[np.uint8]], before: HandedOn | None = None) -> Iterator[FrameResult]:
        """Yield results frame by frame, each before the next image is requested: low latency for live input."""
        memory: Keyframe | None = None
        key_size = (0, 0)
        for index, image in enumerate(images):
            size = (image.shape[0], image.shape[1])
            with torch.inference_mode():
                if not self.options.uses_memory:
                    result = self._alone(image, size)
                elif memory is None or index % self.options.keyframe_interval == 0:
                    key_size = size
                    result, memory = self._keyframe(image, size, before)
                    before = self._carried(memory)
                else:
                    _check_sizes({key_size, size})
                    result = self._in_parts([image], memory, size)[0]
            yield replace(result, carried=before)

    @torch.inference_mode()
    def run(
        self,
        images: Sequence[NDArray[np.uint8]],
        label_size: tuple[int, int] | None = None,
        before: HandedOn | Callable[[], HandedOn | None] | None = None,
        *,
        hand_on: Callable[[HandedOn | None], None] = lambda carried: None,
    ) -> list[FrameResult]:
        """Compute the frames of one interval, ``images`` ((H, W, 3) uint8 RGB), in order.

        ``label_size`` (height, width) is the size of the labels if it differs from the images'. ``before`` may be a
        function that waits for its value; it is called when the value is needed. ``hand_on`` receives the carry-over
        for the next interval as soon as it is known. Raises UsageError if the images differ in size.
        """
        sizes = {(image.shape[0], image.shape[1]) for image in images}
        _check_sizes(sizes)
        size = label_size or sizes.pop()
        if not self.options.uses_memory:
            return [self._alone(image, size) for image in images]
        key = self.options.keyframe_of(len(images))
        keyframe, memory = self._keyframe(images[key], size, before, hand_on)
        others = [image for index, image in enumerate(images) if index != key]
        results = self._in_parts(others, memory, size)
        return self._handed_on([*results[:key], keyframe, *results[key:]], memory)

    def _handed_on(self, results: list[FrameResult], memory: Keyframe) -> list[FrameResult]:
        """Results up to the end of an interval; the last one holds the carry-over for the next interval."""
        return [*results[:-1], replace(results[-1], carried=self._carried(memory))]

    def _carried(self, memory: Keyframe) -> Carried | None:
        return memory.carried.last() if self.options.carries else None

    @torch.inference_mode()
    def _together(
        self, images: Sequence[NDArray[np.uint8]], before: HandedOn | None, label_size: tuple[int, int] | None
    ) -> list[FrameResult] | None:
        """Compute several whole intervals in one batch; from the first time they do not fit on, return None."""
        size = label_size or (images[0].shape[0], images[0].shape[1])
        try:
            return self._intervals(images, size, before) if self.options.uses_memory else self._images(images, size)
        except torch.OutOfMemoryError:
            self.intervals_at_once = 1
            logger.info("out of GPU memory: continuing with one interval at a time")
            return None

    def _intervals(
        self, images: Sequence[NDArray[np.uint8]], size: tuple[int, int], before: HandedOn | None
    ) -> list[FrameResult]:
        started_s = time.perf_counter()
        length, key = self.options.keyframe_interval, self.options.keyframe_of(self.options.keyframe_interval)
        batch = self.to_input(images)
        before = _if_it_fits(before, batch)
        memory, others = self.network.intervals(batch, length, key, before, self.options)
        key_labels, key_sure = map(iter, self.said(memory.logits, size))
        labels, sure = map(iter, self.said(others.logits, size))
        similarity, updated = iter(others.similarity.float().cpu().numpy()), iter(others.updated_fraction.tolist())
        elapsed_ms = 1000 * (time.perf_counter() - started_s) / len(images)
        results = [
            FrameResult(next(key_labels), True, None, None, elapsed_ms, next(key_sure))
            if index % length == key
            else FrameResult(next(labels), False, next(similarity), next(updated), elapsed_ms, next(sure))
            for index in range(len(images))
        ]
        return self._handed_on(results, memory)

    def _in_parts(
        self, images: Sequence[NDArray[np.uint8]], memory: Keyframe, size: tuple[int, int]
    ) -> list[FrameResult]:
        """Frames between keyframes, as many at once as fit."""
        results: list[FrameResult] = []
        while len(results) < len(images):
            part = images[len(results) : len(results) + self._batch]
            try:
                results += self._non_keyframes(part, memory, size)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise self._too_large(part[0]) from None
                self._batch = len(part) // 2
                logger.info("out of GPU memory: continuing with batches of %d frames", self._batch)
        return results

    def _images(self, images: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> list[FrameResult]:
        """Frames that no other frame refers to: the image network, with logits bit-identical to keyframes'."""
        started_s = time.perf_counter()
        labels, sure = self.said(self.network.image(self.to_input(images)), size)
        elapsed_ms = 1000 * (time.perf_counter() - started_s) / len(images)
        return [FrameResult(labels[t], True, None, None, elapsed_ms, sure[t]) for t in range(len(images))]

    def _alone(self, image: NDArray[np.uint8], size: tuple[int, int]) -> FrameResult:
        try:
            return self._images([image], size)[0]
        except torch.OutOfMemoryError:
            raise self._too_large(image) from None

    def _keyframe(
        self,
        image: NDArray[np.uint8],
        size: tuple[int, int],
        before: HandedOn | Callable[[], HandedOn | None] | None,
        hand_on: Callable[[HandedOn | None], None] = lambda carried: None,
    ) -> tuple[FrameResult, Keyframe]:
        started_s = time.perf_counter()
        try:
            batch = self.to_input([image])
            _, memory = self.network.keyframe(batch)
            taken = _if_it_fits(before() if callable(before) else before, batch)
            memory = self.network.carry_over(memory, taken, self.options)
            hand_on(self._carried(memory))
            labels, sure = self.said(memory.logits, size)
        except torch.OutOfMemoryError:
            raise self._too_large(image) from None
        elapsed_ms = 1000 * (time.perf_counter() - started_s)
        return FrameResult(labels[0], True, None, None, elapsed_ms, sure[0]), memory

    def _non_keyframes(
        self, images: Sequence[NDArray[np.uint8]], memory: Keyframe, size: tuple[int, int]
    ) -> list[FrameResult]:
        started_s = time.perf_counter()
        result = self.network.non_keyframes(self.to_input(images), memory, self.options)
        labels, sure = self.said(result.logits, size)
        similarity = result.similarity.float().cpu().numpy()
        updated = result.updated_fraction.cpu().tolist()
        elapsed_ms = 1000 * (time.perf_counter() - started_s) / len(images)
        return [
            FrameResult(labels[t], False, similarity[t], updated[t], elapsed_ms, sure[t]) for t in range(len(images))
        ]

    def to_input(self, images: Sequence[NDArray[np.uint8]], size: int | None = None) -> Tensor:
        """Normalise to (T, 3, H', W') in channels-last order, as pixels come; ``size`` None takes the options'."""
        size = size or self.options.size
        height, width = network_size((images[0].shape[0], images[0].shape[1]), size)
        if size == self.options.size:
            self._tell_size((images[0].shape[0], images[0].shape[1]), (height, width))
        shrinks = min(images[0].shape[:2]) > size
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        batch = np.empty((len(images), height, width, 3), np.float32)
        for image, normalised in zip(images, batch, strict=True):
            cv2.LUT(cv2.resize(image, (width, height), interpolation=how), self._normalised, dst=normalised)
        return torch.from_numpy(batch).to(device=self._device, dtype=self._dtype).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def logits(self, image: NDArray[np.uint8]) -> Tensor:
        """Logits (1, K, h, w) of a single image, as in mode ``image``."""
        return self.network.image(self.to_input([image]))

    def said(self, logits: Tensor, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Labels (B, H, W) of ``size``, and their confidence (B, h, w)."""
        labels, sure = labels_from_logits(logits, size), self.sureness(logits)
        return labels.cpu().numpy(), sure.cpu().numpy()

    def sureness(self, logits: Tensor) -> Tensor:
        """Confidence of the labels of ``logits`` (B, K, h, w): (B, h, w) uint8, as in `FrameResult`."""
        return confidence_from_logits(logits, self._temperature)

    def _tell_size(self, source: tuple[int, int], size: tuple[int, int]) -> None:
        """Log the network's input size for a new frame size (height, width)."""
        if source != self._source:
            self._source = source
            logger.info("network input %d×%d for frames of %d×%d", *size[::-1], *source[::-1])

    def _too_large(self, image: NDArray[np.uint8]) -> TfcsegError:
        height, width = network_size((image.shape[0], image.shape[1]), self.options.size)
        return TfcsegError(
            f"too little GPU memory for one frame of {width}×{height}; use a smaller --size or --device cpu"
        )


def _if_it_fits(before: HandedOn | None, batch: Tensor) -> Carried | None:
    """Convert to what a ``batch`` (T, 3, H, W) needs; None if its images have another size, so that the video starts
    anew."""
    if not isinstance(before, Carried) or not before.fits((batch.shape[-2], batch.shape[-1])):
        return None
    return Carried(before.logits.to(batch), before.match.to(batch))  # a resumed run read it from a file


def _check_sizes(sizes: set[tuple[int, int]]) -> None:
    """Raise UsageError unless all sizes (height, width) are equal."""
    if len(sizes) > 1:
        shown = " and ".join(f"{height}×{width}" for height, width in sorted(sizes))
        raise UsageError(f"frames between two keyframes must have the same size, not {shown} (height×width)")
