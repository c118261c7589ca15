"""One interval of frames through the network: preprocess → model → labels.

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
from tfcseg.model.carry_over import Carried
from tfcseg.model.evidence import HandedOn
from tfcseg.model.ops.compiled import CompiledBackbone, compile_backbone
from tfcseg.model.ops.confidence import confidence_from_logits
from tfcseg.model.ops.label_map import labels_from_logits
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import Keyframe, NonKeyframes
from tfcseg.weights.loading import LoadedModel

logger = logging.getLogger(__name__)

BATCH = 16
"""Frames computed at once at most: bounds memory for long intervals."""

MAX_WORKERS = 4
"""Intervals computed at the same time on a processor at most: each needs memory of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """What the network says about one frame."""

    labels: NDArray[np.uint8]
    """(H, W) class indices at the source's size."""
    model_ms: float
    """Preprocessing, network and labels; frames computed together share their time equally."""
    confidence: NDArray[np.uint8] | None = None
    """(h, w) how sure the labels are: 255 times the probability that they are right."""
    similarity: NDArray[np.float32] | None = None
    """w_t (h, w) in [-1, 1]; None at keyframes."""
    updated_fraction: float | None = None
    """Share of points updated by sparse MSDA; None at keyframes."""
    carried: HandedOn | None = None
    """What the next interval takes over; at the end of an interval, and only if keyframes carry anything."""

    @property
    def is_keyframe(self) -> bool:
        """Whether the frame refers to no other."""
        return self.similarity is None


class IntervalNetwork:
    """Runs intervals of frames of any length through a model; holds nothing from one interval to the next.

    What an interval takes over from the one before, its caller hands on: ``before``, the last result's ``carried``.
    None begins a video.

    On a GPU several intervals (in mode ``image`` several frames) are computed at once. If it runs out of memory there,
    it is one interval at a time, then its frames between keyframes in halves, down to one at a time.
    """

    def __init__(self, model: LoadedModel, options: InferenceOptions) -> None:
        self.network = model.network
        self.options, self.labels = options, model.labels
        self._temperature = model.temperature
        self._input = NetworkInput(model, options.size)
        self._batch = BATCH
        # A processor's caches like single frames, a GPU's many cores like many.
        on_gpu = model.device.type == "cuda"
        self.chunk = BATCH if on_gpu else 1
        self.intervals_at_once = max(1, BATCH // options.keyframe_interval) if on_gpu else 1
        self.workers = _workers(model, options)
        logger.info(
            "mode %s: every %d frames a keyframe, the %s of its interval; %s correlation, threshold %g%s",
            *(options.mode, options.keyframe_interval, options.keyframe_position),
            *(options.correlation, options.threshold),
            f", carry {options.keyframe_carry:g}" if options.carries else "",
            extra={**asdict(options), "frames_at_once": self.frames_at_once},
        )

    @property
    def frames_at_once(self) -> int:
        """Frames to give for full speed: whole intervals, or with both sides any number."""
        if self.options.sides == "both":
            return self.chunk
        return self.intervals_at_once * self.options.keyframe_interval

    def run_many(
        self,
        images: Sequence[NDArray[np.uint8]],
        before: HandedOn | None = None,
        label_size: tuple[int, int] | None = None,
    ) -> list[FrameResult]:
        """Results for the frames of one or several intervals; the last may be shorter.

        UsageError if the sizes of an interval's frames differ.
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
        """Results frame by frame, each before the next image is asked for: low latency for live input."""
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
        """Results for the frames of one interval, ``images`` ((H, W, 3) uint8 RGB), in their order.

        ``label_size`` (height, width) is that of the labels if it is not the images'. ``before`` may be a function that
        waits for it: it is called once it is needed. ``hand_on`` is told what the next interval takes over as soon as
        that is known. UsageError if the images differ in size.
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
        """Results up to the end of an interval, the last with what the next interval takes over."""
        return [*results[:-1], replace(results[-1], carried=self._carried(memory))]

    def _carried(self, memory: Keyframe) -> Carried | None:
        return memory.carried.last() if self.options.carries else None

    @torch.inference_mode()
    def _together(
        self, images: Sequence[NDArray[np.uint8]], before: HandedOn | None, label_size: tuple[int, int] | None
    ) -> list[FrameResult] | None:
        """Several whole intervals in one batch; None if they do not fit, from then on."""
        size = label_size or (images[0].shape[0], images[0].shape[1])
        try:
            return self._intervals(images, size, before) if self.options.uses_memory else self._images(images, size)
        except torch.OutOfMemoryError:
            self.intervals_at_once = 1
            logger.info("the GPU is full: one interval at a time from here on")
            return None

    def _intervals(
        self, images: Sequence[NDArray[np.uint8]], size: tuple[int, int], before: HandedOn | None
    ) -> list[FrameResult]:
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

    def _in_parts(
        self, images: Sequence[NDArray[np.uint8]], memory: Keyframe, size: tuple[int, int]
    ) -> list[FrameResult]:
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
                logger.info("the GPU is full: batches of %d frames from here on", self._batch)
        return results

    def _images(self, images: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> list[FrameResult]:
        """Frames that no other refers to: the image network, bit for bit the logits of keyframes."""
        started_s = time.perf_counter()
        return self._results(self.network.image(self.to_input(images)), size, started_s)

    def _alone(self, image: NDArray[np.uint8], size: tuple[int, int]) -> FrameResult:
        with self._input.fits(image):
            return self._images([image], size)[0]

    def _keyframe(
        self,
        image: NDArray[np.uint8],
        size: tuple[int, int],
        before: HandedOn | Callable[[], HandedOn | None] | None,
        hand_on: Callable[[HandedOn | None], None] = lambda carried: None,
    ) -> tuple[FrameResult, Keyframe]:
        started_s = time.perf_counter()
        with self._input.fits(image):
            batch = self.to_input([image])
            _, memory = self.network.keyframe(batch)
            taken = _if_it_fits(before() if callable(before) else before, batch)
            memory = self.network.carry_over(memory, taken, self.options)
            hand_on(self._carried(memory))
            return self._results(memory.logits, size, started_s)[0], memory

    def _results(
        self, logits: Tensor, size: tuple[int, int], started_s: float, between: NonKeyframes | None = None
    ) -> list[FrameResult]:
        """Labels of frames that were begun at ``started_s``; ``between`` if they are not keyframes."""
        labels, sure = self.said(logits, size)
        similarity = [None] * len(labels) if between is None else between.similarity.float().cpu().numpy()
        updated = [None] * len(labels) if between is None else between.updated_fraction.cpu().tolist()
        elapsed_ms = 1000 * (time.perf_counter() - started_s) / len(labels)
        return [FrameResult(labels[t], elapsed_ms, sure[t], similarity[t], updated[t]) for t in range(len(labels))]

    def to_input(self, images: Sequence[NDArray[np.uint8]], size: int | None = None) -> Tensor:
        """(T, 3, H', W') normalised; ``size`` is the options', if None."""
        return self._input.batch(images, size)

    def said(self, logits: Tensor, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Labels (B, H, W) of ``size`` and how sure they are (B, h, w)."""
        labels, sure = labels_from_logits(logits, size), confidence_from_logits(logits, self._temperature)
        return labels.cpu().numpy(), sure.cpu().numpy()


def compile_for(network: IntervalNetwork, source: tuple[int, int]) -> float:
    """Compile a network for frames of ``source`` (height, width); seconds it took, TfcsegError if it cannot."""
    keyframes = network.intervals_at_once if network.options.latency == "normal" else 1
    count = 1 if keyframes == 1 else network.frames_at_once
    return compile_backbone(network.network, network.to_input([np.zeros((*source, 3), np.uint8)] * count), keyframes)


def _workers(model: LoadedModel, options: InferenceOptions) -> int:
    """Intervals to compute at the same time, each in a thread of its own: several on a processor."""
    # Compiled code is made for one number of threads; long intervals hold too many frames.
    is_compiled = options.compile or isinstance(model.network.backbone, CompiledBackbone)
    is_long = options.keyframe_interval > BATCH and options.sides == "one"
    if is_compiled or is_long or options.latency == "low" or model.device.type != "cpu":
        return 1
    return min(torch.get_num_threads(), MAX_WORKERS)


def _if_it_fits(before: HandedOn | None, batch: Tensor) -> Carried | None:
    """As a ``batch`` (T, 3, H, W) needs it; None if its images have another size, and so begin anew."""
    if not isinstance(before, Carried) or not before.fits((batch.shape[-2], batch.shape[-1])):
        return None
    return Carried(before.logits.to(batch), before.match.to(batch))  # a resumed run read it from a file


def _check_sizes(sizes: set[tuple[int, int]]) -> None:
    """UsageError if these are several (height, width)."""
    if len(sizes) > 1:
        shown = " and ".join(f"{height}×{width}" for height, width in sorted(sizes))
        raise UsageError(f"frames between two keyframes must have one size, not {shown} (height×width)")
