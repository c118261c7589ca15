"""Run one interval of frames through the network: preprocess → model → labels.

Letters: T frames, H W source image, h w grid of the logits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tfcseg.errors import UsageError
from tfcseg.inference.network_input import NetworkInput
from tfcseg.inference.options import describe_method
from tfcseg.media.frames import Image
from tfcseg.model.carry_over import Carried
from tfcseg.model.evidence import CarryOver
from tfcseg.model.ops.confidence import confidence_from_logits
from tfcseg.model.ops.labelling import labels_from_logits
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import Keyframe, NonKeyframes
from tfcseg.weights.loading import LoadedModel

logger = logging.getLogger(__name__)

BATCH = 16
"""Maximum number of frames computed at once; bounds memory for long intervals."""

MAX_WORKERS = 4
"""Maximum number of intervals computed at the same time on a CPU; each needs its own memory."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """The network's output for one frame."""

    labels: NDArray[np.uint8]
    """(H, W) class indices at the source's size."""
    model_ms: float
    """Seconds for preprocessing, network and labels; frames computed together share their time equally."""
    confidence: NDArray[np.uint8] | None = None
    """(h, w) confidence of the labels: 255 times the probability that they are right."""
    similarity: NDArray[np.float32] | None = None
    """w_t (h, w) in [-1, 1]; None at keyframes."""
    updated_fraction: float | None = None
    """Share of points updated by sparse MSDA; None at keyframes."""
    carried: CarryOver | None = None
    """Carry-over for the next interval; only at the end of an interval, and if keyframes carry anything."""

    @property
    def is_keyframe(self) -> bool:
        """Whether the frame refers to no other."""
        return self.similarity is None


class IntervalNetwork:
    """Runs intervals of frames of any length through a model; keeps no state between intervals.

    The caller passes on what an interval takes over from the one before: ``before`` is the last result's ``carried``,
    None at the start of a video.

    A GPU computes several intervals at once (several frames in mode ``image``). If it runs out of memory, it continues
    with one interval at a time, then halves the number of frames, down to one.
    """

    def __init__(self, model: LoadedModel, options: InferenceOptions) -> None:
        self.network = model.network
        self.options, self.labels = options, model.labels
        self._temperature = model.temperature
        self._input = NetworkInput(model, options.size)
        self._batch = BATCH
        # Single frames suit a CPU's caches, batches suit a GPU's many cores.
        self.on_gpu = model.device.type == "cuda"
        self.chunk = BATCH if self.on_gpu else 1
        self.intervals_at_once = max(1, BATCH // options.keyframe_interval) if self.on_gpu else 1
        self.workers = _workers(model, options)
        logger.info(
            "mode %s: %s",
            *(options.mode, describe_method(options)),
            extra={**asdict(options), "frames_at_once": self.frames_at_once},
        )

    @property
    def frames_at_once(self) -> int:
        """How many frames to pass for full speed: whole intervals, or any number with both sides."""
        whole = self.intervals_at_once * self.options.keyframe_interval
        return self.chunk if self.options.sides == "both" else whole

    def run_many(
        self, images: Sequence[Image], before: CarryOver | None = None, label_size: tuple[int, int] | None = None
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

    def stream(self, images: Iterable[Image], before: CarryOver | None = None) -> Iterator[FrameResult]:
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
        images: Sequence[Image],
        label_size: tuple[int, int] | None = None,
        before: CarryOver | Callable[[], CarryOver | None] | None = None,
        *,
        pass_on: Callable[[CarryOver | None], None] = lambda carried: None,
    ) -> list[FrameResult]:
        """Compute the frames of one interval, ``images`` ((H, W, 3) uint8 RGB), in order.

        ``label_size`` (height, width) is the size of the labels if it differs from the images'. ``before`` may be a
        function that waits for its value; it is called when the value is needed. ``pass_on`` receives the carry-over
        for the next interval as soon as it is known. Raises UsageError if the images differ in size.
        """
        sizes = {(image.shape[0], image.shape[1]) for image in images}
        _check_sizes(sizes)
        size = label_size or sizes.pop()
        if not self.options.uses_memory:
            return [self._alone(image, size) for image in images]
        key = self.options.keyframe_of(len(images))
        keyframe, memory = self._keyframe(images[key], size, before, pass_on)
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
        self, images: Sequence[Image], before: CarryOver | None, label_size: tuple[int, int] | None
    ) -> list[FrameResult] | None:
        """Compute several whole intervals in one batch; from the first time they do not fit on, return None."""
        size = label_size or (images[0].shape[0], images[0].shape[1])
        try:
            return self._intervals(images, size, before) if self.options.uses_memory else self._images(images, size)
        except torch.OutOfMemoryError:
            self.intervals_at_once = 1
            logger.info("out of GPU memory: continuing with one interval at a time")
            return None

    def _intervals(self, images: Sequence[Image], size: tuple[int, int], before: CarryOver | None) -> list[FrameResult]:
        started_s = time.perf_counter()
        length, key = self.options.keyframe_interval, self.options.keyframe_of(self.options.keyframe_interval)
        batch = self.to_input(images)
        before = _if_it_fits(before, batch)
        memory, others = self.network.intervals(batch, length, key, before, self.options)
        keyframes = iter(self._results(memory.logits, size, started_s))
        between = iter(self._results(others.logits, size, started_s, others))
        elapsed_ms = 1000 * (time.perf_counter() - started_s) / len(images)
        results = [
            replace(next(keyframes if index % length == key else between), model_ms=elapsed_ms)
            for index in range(len(images))
        ]
        return self._handed_on(results, memory)

    def _in_parts(self, images: Sequence[Image], memory: Keyframe, size: tuple[int, int]) -> list[FrameResult]:
        """Frames between keyframes, as many at once as fit."""
        results: list[FrameResult] = []
        while len(results) < len(images):
            part = images[len(results) : len(results) + self._batch]
            try:
                started_s = time.perf_counter()
                found = self.network.non_keyframes(self.to_input(part), memory, self.options)
                results += self._results(found.logits, size, started_s, found)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise self._input.too_large(part[0]) from None
                self._batch = len(part) // 2
                logger.info("out of GPU memory: continuing with batches of %d frames", self._batch)
        return results

    def _images(self, images: Sequence[Image], size: tuple[int, int]) -> list[FrameResult]:
        """Frames that no other frame refers to: the image network, with logits bit-identical to keyframes'."""
        started_s = time.perf_counter()
        return self._results(self.network.image(self.to_input(images)), size, started_s)

    def _alone(self, image: Image, size: tuple[int, int]) -> FrameResult:
        with self._input.fits(image):
            return self._images([image], size)[0]

    def _keyframe(
        self,
        image: Image,
        size: tuple[int, int],
        before: CarryOver | Callable[[], CarryOver | None] | None,
        pass_on: Callable[[CarryOver | None], None] = lambda carried: None,
    ) -> tuple[FrameResult, Keyframe]:
        started_s = time.perf_counter()
        with self._input.fits(image):
            batch = self.to_input([image])
            _, memory = self.network.keyframe(batch)
            taken = _if_it_fits(before() if callable(before) else before, batch)
            memory = self.network.carry_over(memory, taken, self.options)
            pass_on(self._carried(memory))
            return self._results(memory.logits, size, started_s)[0], memory

    def _results(
        self, logits: Tensor, size: tuple[int, int], started_s: float, between: NonKeyframes | None = None
    ) -> list[FrameResult]:
        """Labels of frames that were begun at ``started_s``; ``between`` if they are not keyframes."""
        labels, confidence = self.to_labels(logits, size)
        similarity = [None] * len(labels) if between is None else between.similarity.float().cpu().numpy()
        updated = [None] * len(labels) if between is None else between.updated_fraction.cpu().tolist()
        elapsed_ms = 1000 * (time.perf_counter() - started_s) / len(labels)
        return [
            FrameResult(labels[t], elapsed_ms, confidence[t], similarity[t], updated[t]) for t in range(len(labels))
        ]

    def to_input(self, images: Sequence[Image], size: int | None = None) -> Tensor:
        """(T, 3, H', W') normalised; ``size`` is the options', if None."""
        return self._input.batch(images, size)

    @torch.inference_mode()
    def logits(self, image: Image) -> Tensor:
        """Logits (1, K, h, w) of a single image, as in mode ``image``."""
        return self.network.image(self.to_input([image]))

    def to_labels(self, logits: Tensor, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Labels (B, H, W) of ``size``, and their confidence (B, h, w)."""
        labels, confidence = labels_from_logits(logits, size), self.confidence(logits)
        return labels.cpu().numpy(), confidence.cpu().numpy()

    def confidence(self, logits: Tensor) -> Tensor:
        """Confidence of the labels of ``logits`` (B, K, h, w): (B, h, w) uint8, as in `FrameResult`."""
        return confidence_from_logits(logits, self._temperature)


def _workers(model: LoadedModel, options: InferenceOptions) -> int:
    """Intervals to compute at the same time, each in a thread of its own: several on a processor."""
    is_long = options.keyframe_interval > BATCH and options.sides == "one"  # holds too many frames
    if is_long or options.latency == "low" or model.device.type != "cpu":
        return 1
    return min(torch.get_num_threads(), MAX_WORKERS)


def _if_it_fits(before: CarryOver | None, batch: Tensor) -> Carried | None:
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
