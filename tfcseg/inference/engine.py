"""Run one interval of frames through the network: preprocess → model → labels.

Letters: T frames, H W source image, h w grid of the logits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tfcseg.errors import TfcsegError, UsageError
from tfcseg.inference.network_input import NetworkInput
from tfcseg.inference.options import describe_method
from tfcseg.media.frames import Image
from tfcseg.model.evidence import CarryOver
from tfcseg.model.ops.labelling import confidence_from_logits, labels_from_logits
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import Keyframe, NonKeyframes
from tfcseg.weights.loading import LoadedModel

logger = logging.getLogger(__name__)
_S = TypeVar("_S")
_T = TypeVar("_T")

BATCH = 16  # maximum number of frames computed at once; bounds memory for long intervals

MAX_WORKERS = 4  # maximum number of intervals computed at the same time on a CPU; each needs its own memory


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """The network's output for one frame."""

    labels: NDArray[np.uint8]  # (H, W) class indices at the source's size
    model_ms: float
    """Milliseconds for preprocessing, network and labels; frames computed together share their time equally."""
    confidence: NDArray[np.uint8] | None = None
    """(h, w) confidence of the labels: 255 times the probability that they are right."""
    similarity: NDArray[np.float32] | None = None  # w_t (h, w) in [-1, 1]; None at keyframes
    updated_fraction: float | None = None  # share of points updated by sparse MSDA; None at keyframes
    carried: CarryOver | None = None
    """Carry-over for the next keyframe; only before one, and where keyframes are weighed."""

    @property
    def is_keyframe(self) -> bool:
        """Whether the frame refers to no other."""
        return self.similarity is None


class IntervalNetwork:
    """Runs intervals of frames of any length through a model; keeps no state between intervals.

    A GPU computes up to ``BATCH`` frames at once. If its memory is full, it continues with half as many, down to one.
    """

    def __init__(self, model: LoadedModel, options: InferenceOptions) -> None:
        self.network = model.network
        self.options, self.labels = options, model.labels
        self._temperature = model.temperature
        self._input = NetworkInput(model, options.keyframe_size if options.mode == "image" else options.size)
        self._batch = BATCH
        # Single frames suit a CPU's caches, batches suit a GPU's many cores.
        self.chunk = BATCH if model.device.type == "cuda" else 1
        holds_too_many = options.keyframe_interval > BATCH and options.sides == "one"
        is_alone = holds_too_many or options.latency == "low" or model.device.type != "cpu"
        self.workers = 1 if is_alone else min(torch.get_num_threads(), MAX_WORKERS)
        logger.info(
            "mode %s: %s",
            *(options.mode, describe_method(options)),
            extra={**asdict(options), "frames_at_once": self.frames_at_once},
        )

    @contextmanager
    def pool(self) -> Iterator[ThreadPoolExecutor]:
        """A thread for each worker, with its share of torch's threads; new threads get as many as before at the end."""
        threads = torch.get_num_threads()
        share = max(1, threads // self.workers)
        pool = ThreadPoolExecutor(self.workers, "tfcseg-network", torch.set_num_threads, (share,))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)

    @property
    def clock(self) -> Callable[[], float]:
        """Clock of the network's time: with several workers the thread's own, since waiting for a core that another
        thread uses is not the network's time."""
        return time.thread_time if self.workers > 1 else time.perf_counter

    @property
    def frames_at_once(self) -> int:
        """Number of frames to pass at once: those of an interval; any number of frames that belong to none."""
        is_interval = self.options.uses_memory and self.options.sides == "one"
        return self.options.keyframe_interval if is_interval else self.chunk

    def stream(self, images: Iterable[Image]) -> Iterator[FrameResult]:
        """Yield results frame by frame, each before the next image is requested: low latency for live input."""
        memory: Keyframe | None = None
        key_size = (0, 0)
        for index, image in enumerate(images):
            size = _size(image)
            with torch.inference_mode():
                if not self.options.uses_memory:
                    result = self._images([image], size)[0]
                elif memory is None or index % self.options.keyframe_interval == 0:
                    key_size = size
                    result, memory = self._keyframe(image, size)
                else:
                    _check_sizes({key_size, size})
                    result = self._others([image], memory, size)[0]
            yield result

    @torch.inference_mode()
    def run(self, images: Sequence[Image], label_size: tuple[int, int] | None = None) -> list[FrameResult]:
        """Compute ``images`` ((H, W, 3) uint8 RGB), the frames of one interval in order; in mode ``image``, any frames.

        ``label_size`` (height, width) is the size of the labels if it differs from the images'. Raises UsageError if
        the images of an interval differ in size.
        """
        if not images or not self.options.uses_memory:
            return self._images(images, label_size)
        _check_sizes({_size(image) for image in images})
        size = label_size or _size(images[0])
        keyframe, memory = self._keyframe(images[0], size)
        return [keyframe, *self._others(images[1:], memory, size)]

    def _images(self, images: Sequence[Image], label_size: tuple[int, int] | None) -> list[FrameResult]:
        """Frames that no other frame refers to: the image network, with logits bit-identical to keyframes'."""

        def compute(part: Sequence[Image]) -> list[FrameResult]:
            started_s = self.clock()
            return self._results(self.logits(part), label_size or _size(part[0]), started_s)

        alike = [list(run) for _, run in groupby(images, key=_size)]
        return [result for run in alike for result in self.in_parts(compute, run, self.chunk)]

    def _others(self, images: Sequence[Image], memory: Keyframe, size: tuple[int, int]) -> list[FrameResult]:

        def compute(part: Sequence[Image]) -> list[FrameResult]:
            started_s = self.clock()
            found = self.network.non_keyframes(self.to_input(part), memory, self.options)
            return self._results(found.logits, size, started_s, found)

        return self.in_parts(compute, images)

    def in_parts(self, compute: Callable[[Sequence[_S]], list[_T]], items: Sequence[_S], most: int = BATCH) -> list[_T]:
        """Results of ``items``, frames in some form: up to ``most`` at once, or as many as fit into memory."""
        results: list[_T] = []
        while len(results) < len(items):
            part = items[len(results) : len(results) + min(most, self._batch)]
            try:
                results += compute(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise self._too_large() from None
                self._batch = len(part) // 2
                logger.info("out of GPU memory: continuing with batches of %d frames", self._batch)
        return results

    def _too_large(self) -> TfcsegError:
        needed = f"one frame at --size {self.options.size}"
        return TfcsegError(f"too little GPU memory for {needed}; use a smaller --size or --device cpu")

    def _keyframe(self, image: Image, size: tuple[int, int]) -> tuple[FrameResult, Keyframe]:
        started_s = self.clock()
        try:
            _, memory = self.network.keyframe(self.to_input([image]))
            memory = memory.with_added(self._added([image], memory.logits))
            return self._results(memory.logits, size, started_s)[0], memory
        except torch.OutOfMemoryError:
            raise self._too_large() from None

    def _results(
        self, logits: Tensor, size: tuple[int, int], started_s: float, between: NonKeyframes | None = None
    ) -> list[FrameResult]:
        """Labels of frames that were begun at ``started_s``; ``between`` if they are not keyframes."""
        labels, confidence = self.to_labels(logits, size)
        similarity = [None] * len(labels) if between is None else between.similarity.float().cpu().numpy()
        updated = [None] * len(labels) if between is None else between.updated_fraction.cpu().tolist()
        elapsed_ms = 1000 * (self.clock() - started_s) / len(labels)
        return [
            FrameResult(labels[t], elapsed_ms, confidence[t], similarity[t], updated[t]) for t in range(len(labels))
        ]

    def to_input(self, images: Sequence[Image], size: int | None = None) -> Tensor:
        """(T, 3, H', W') normalised; ``size`` is the options' (in mode ``image`` that of keyframes), if None."""
        return self._input.batch(images, size)

    @torch.inference_mode()
    def logits(self, images: Sequence[Image]) -> Tensor:
        """Logits (T, K, h, w) of images, each on its own, as in mode ``image``."""
        return self.with_added(images, self.network.image(self.to_input(images)))

    def with_added(self, images: Sequence[Image], logits: Tensor, half: Tensor | None = None) -> Tensor:
        """The ``logits`` (T, K, h, w) of images, with what half the size adds; ``half`` (T, K, ·, ·) are the network's
        logits there, if they are known already."""
        added = self._added(images, logits, half)
        return logits if added is None else added.add_(logits)

    def _added(self, images: Sequence[Image], logits: Tensor, half: Tensor | None = None) -> Tensor | None:
        """What half the size adds (T, K, h, w). None if it has no share."""
        if not self.options.uses_half_size:
            return None
        seen = self.to_input(images, self.options.size // 2)
        return self.network.added_by_half_size(logits, seen, self.options, half)

    def to_labels(self, logits: Tensor, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Labels (B, H, W) of ``size``, and their confidence (B, h, w)."""
        labels, confidence = labels_from_logits(logits, size), self.confidence(logits)
        return labels.cpu().numpy(), confidence.cpu().numpy()

    def confidence(self, logits: Tensor) -> Tensor:
        """Confidence of the labels of ``logits`` (B, K, h, w): (B, h, w) uint8, as in `FrameResult`."""
        return confidence_from_logits(logits, self._temperature)


def _size(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _check_sizes(sizes: set[tuple[int, int]]) -> None:
    if len(sizes) > 1:
        shown = " and ".join(f"{height}×{width}" for height, width in sorted(sizes))
        raise UsageError(f"frames between two keyframes must have the same size, not {shown} (height×width)")
