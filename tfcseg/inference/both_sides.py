"""Run a video through the network with weighed keyframes before and after frames (model/evidence.py), in a window.

Frames are compared in order to decide which of them are keyframes. A keyframe is finished once all keyframes up to
``REACH`` frames after it are known; the frames after it are finished once the next keyframe is. With ``past``, only
those before it are used, and low latency waits for nothing. Results therefore depend neither on how many frames arrive
at once nor on the number of workers nor on where a run was stopped: the first frame of a part is a keyframe, and is
combined with the carry-over of those before it. That of a section is combined only with those at the end of the section
before, so that several machines can share a video.

On a CPU every worker computes its own frame on a share of the cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch

from tfcseg.inference.engine import FrameResult, IntervalNetwork
from tfcseg.inference.groups import SECTION_PARTS, Group
from tfcseg.inference.steps import FrameBetween, PreparedKeyframe, Steps
from tfcseg.media.frames import Image
from tfcseg.model.evidence import (
    CarryOver,
    Correspondence,
    LowFeatures,
    SectionEnd,
    WeightedLogits,
    changed_share,
    combine,
)

_S = TypeVar("_S")
_T = TypeVar("_T")

MOST_CHANGED = 0.12
"""A frame becomes a keyframe when the shares of changed positions, summed over the frames since the last keyframe,
exceed this. At a cut the first frame does. Steady scenes get few keyframes, moving ones many: with tfc-mosaic every
eighth frame of a still camera, every sixth of a hand-held walk and every third of a drive."""

REACH = 16
"""A keyframe uses later keyframes up to this many frames ahead."""

MOST_HELD_BYTES = 2**28
"""Frames from one keyframe to the next, and ``REACH`` after it, are held; of large ones fewer, at least one interval
and ``LEAST_REACH``."""

LEAST_REACH = 4

MOST_WORK = 6
"""Tasks per worker that may be queued or running. With fewer, workers would be idle while results are combined.
Only so many as ``MOST_HELD_BYTES`` holds frames, but at least one per worker and the next."""

MOST_UNDECIDED = 4
"""Groups of frames that workers may begin on while one of them combines others; of large frames fewer."""


@dataclass(slots=True)
class _Timed(Generic[_T]):
    """One result of a task, and its share of the seconds that the task took."""

    value: _T
    seconds: float


_Row: TypeAlias = Future[_Timed[_T]]


class _Tasks:
    """Work for the workers; where there is one, on a GPU, in batches."""

    def __init__(self, network: IntervalNetwork, stack: ExitStack) -> None:
        self.workers, self.clock = network.workers, network.clock
        self._chunk, self._in_parts = network.frames_at_once, network.in_parts
        self._pool = stack.enter_context(network.pool()) if self.workers > 1 else None
        self._combining: Future[None] = _done(None)
        self._unfinished: deque[Future[Any]] = deque()

    def submit(
        self, work: Callable[[Sequence[_S]], list[_T]], items: Sequence[_S], images: Sequence[Image] = ()
    ) -> list[_Row[_T]]:
        """One row per item; ``work`` is given several items at a time, whose ``images``, if any, have one size."""
        if self._pool is None:
            shapes: list[Any] = [image.shape for image in images] or [None] * len(items)
            pairs = groupby(zip(shapes, items, strict=True), key=itemgetter(0))
            alike = [[item for _, item in run] for _, run in pairs]
            return [_done(each) for some in alike for each in self._timed(work, some)]
        rows = [self._pool.submit(self._timed_alone, work, item) for item in items]
        self._unfinished += rows
        return rows

    def combine(self, work: Callable[..., None], *values: Any) -> None:
        """Let a worker combine results of tasks, after what was to be combined before."""
        self.has_combined(wait=True)
        if self._pool is None:
            work(*values)
        else:
            self._combining = self._pool.submit(work, *values)

    def has_combined(self, *, wait: bool) -> bool:
        """Whether all is combined that was to be; ``wait`` until it is. Raises what combining raised."""
        is_done = wait or self._combining.done()
        if is_done:
            self._combining.result()
        return is_done

    def throttle(self, images: Sequence[Image]) -> None:
        """Wait until workers have no more to do than keeps them busy; with large ``images``, less."""
        most = min([MOST_WORK * self.workers, *map(_most_held, images)])
        while len(self._unfinished) >= max(self.workers + 1, most):
            wait([self._unfinished.popleft()])

    def _timed_alone(self, work: Callable[[Sequence[_S]], list[_T]], item: _S) -> _Timed[_T]:
        return self._timed(work, [item])[0]

    @torch.inference_mode()
    def _timed(self, work: Callable[[Sequence[_S]], list[_T]], items: Sequence[_S]) -> list[_Timed[_T]]:
        started_s = self.clock()
        results = self._in_parts(work, items, self._chunk)
        seconds = self.clock() - started_s
        return [_Timed(each, seconds / len(results)) for each in results]


@dataclass(slots=True, eq=False)
class _Slot:
    """A frame on its way through the window."""

    index: int
    part: int | None
    """As in `Group`."""
    image: Image | None
    """Held until it is known whether the frame is a keyframe."""
    image_size: tuple[int, int]
    label_size: tuple[int, int]
    horizon: int
    """Index of the last frame that it may use, if that is a keyframe."""
    low: _Row[LowFeatures]
    is_wanted: bool = True
    seconds: float = 0.0
    """Seconds spent on it outside of tasks."""
    found: Correspondence | None = None
    """Where its positions lie in the keyframe before it, if that was computed."""
    own: _Row[WeightedLogits] | None = None
    """Of a keyframe: its logits by itself."""
    around: dict[bool, Correspondence] = field(default_factory=dict)
    """Of a keyframe: where its positions lie in the keyframes before it and after it (True), if that was computed."""
    carry_over: CarryOver | None = None
    """Of a keyframe: its logits combined with those of earlier ones, for later ones."""
    prepared: PreparedKeyframe | None = None
    """Of a keyframe: its logits combined with earlier and later ones, for the frames around it."""
    result: _Row[FrameResult] | None = None
    carried: CarryOver | None = None
    """Carry-over for the next keyframe, if that is the next frame."""

    def found_in(
        self, other: WeightedLogits, own: WeightedLogits, steps: Steps, *, is_later: bool
    ) -> Correspondence | None:
        """Of a keyframe with logits ``own``: where its positions lie in the one after or before it, which is compared
        once. None if they differ in size."""
        if is_later not in self.around and other.logits.shape == own.logits.shape:
            self.around[is_later] = steps.compare_closely(other, own)
        return self.around.get(is_later)

    @property
    def is_done(self) -> bool:
        return self.result is not None and self.result.done()

    def finished(self, workers: int) -> FrameResult:
        """The result; waits for it. The frame took a share of the time, since several workers compute at once."""
        assert self.result is not None
        rows = [row for row in (self.low, self.own, self.result) if row is not None]
        seconds = (self.seconds + sum(row.result().seconds for row in rows)) / workers
        return replace(self.result.result().value, model_ms=1000 * seconds, carried=self.carried)


_Seen: TypeAlias = tuple[Image, _Slot, _Slot | None]
"""A keyframe's image, itself, and the keyframe before it."""


class _Window:
    """The unfinished frames; ``before`` is the carry-over from earlier keyframes."""

    def __init__(self, network: IntervalNetwork, tasks: _Tasks, before: CarryOver | None) -> None:
        self._options = network.options
        self._sees_later = network.options.sides == "both"
        self._steps = Steps(network)
        self._tasks = tasks
        # Carry-over of all keyframes, and of those since the end of a section began (None before).
        self._before, self._latest = self._steps.restored(before)
        self._count = 0
        self._changed = 0.0
        self._undecided: deque[_Slot] = deque()
        """Frames that are not yet known to be keyframes or not."""
        self._spans: deque[list[_Slot]] = deque()
        """For every waiting keyframe: the keyframe and the frames up to the next one."""

    def look(self, group: Group[_T]) -> list[_Slot]:
        """Let workers start on frames."""
        slots: list[_Slot] = []
        rows = self._tasks.submit(self._steps.low_features, group.images, group.images)
        for image, row in zip(group.images, rows, strict=True):
            size = (image.shape[0], image.shape[1])
            slots.append(
                _Slot(
                    index=self._count,
                    part=None if slots else group.part,
                    image=image,
                    image_size=size,
                    label_size=group.label_size or size,
                    horizon=self._count + (reach_for(image) if self._sees_later else 0),
                    low=row,
                    is_wanted=group.is_wanted,
                )
            )
            self._count += 1
        self._undecided += slots
        return slots

    def may_decide(self, count: int) -> bool:
        """Whether it can be decided now which of the next ``count`` frames are keyframes."""
        return self._options.keyframes == "fixed" or all(slot.low.done() for slot in islice(self._undecided, count))

    def wait_for_keyframes(self) -> None:
        """Wait until the logits of all keyframes are computed, so that no worker waits for another one."""
        wait([span[0].own for span in self._spans if span[0].own is not None])

    @torch.inference_mode()
    def advance(self, count: int) -> None:
        """Find the keyframes among the next ``count`` frames, let workers start on them, and finish what can be."""
        slots = [self._undecided.popleft() for _ in range(count)]
        seen: list[_Seen] = []
        for slot in slots:
            if self._is_keyframe(slot):
                assert slot.image is not None
                seen.append((slot.image, slot, self._spans[-1][0] if self._spans else None))
                self._changed = 0.0
                self._spans.append([])
            self._spans[-1].append(slot)
        rows = self._tasks.submit(self._own_logits, seen, [image for image, *_ in seen])
        for (_, slot, _), row in zip(seen, rows, strict=True):
            slot.own, slot.found = row, None
        for slot in slots:
            slot.image = None
        self.settle()

    def _own_logits(self, seen: Sequence[_Seen]) -> list[WeightedLogits]:
        # Low features were begun earlier, so no worker waits for one behind it.
        low = [slot.low.result().value for _, slot, _ in seen]
        found = self._steps.own_logits([image for image, *_ in seen], low)
        for (_, slot, before), own in zip(seen, found, strict=True):
            # Compared here, other workers go on meanwhile; only one at a time combines keyframes.
            if before is not None and before.own is not None and before.own.done():
                slot.found_in(before.own.result().value, own, self._steps, is_later=False)
                if slot.index <= before.horizon:
                    before.found_in(own, before.own.result().value, self._steps, is_later=True)
        return found

    def _is_keyframe(self, slot: _Slot) -> bool:
        if not self._spans or slot.part is not None:
            return True
        keyframe = self._spans[-1][0]
        if slot.image_size != keyframe.image_size:  # another size starts afresh
            return True
        assert slot.image is not None
        longest = min(self._options.longest_interval, max(self._options.keyframe_interval, _most_held(slot.image)))
        if slot.index - keyframe.index >= longest:
            return True
        if self._options.keyframes == "fixed":
            return False
        seen = slot.low.result().value
        started_s = self._tasks.clock()
        slot.found = self._steps.compare(keyframe.low.result().value.match, seen.match, self._steps.grid(slot.image))
        self._changed += changed_share(slot.found.similarity).item()
        slot.seconds += self._tasks.clock() - started_s
        return self._changed > MOST_CHANGED

    @torch.inference_mode()
    def settle(self, is_end: bool = False) -> None:
        """Let workers finish what can be finished; at the end of the video that is everything."""
        if self._options.latency == "low":
            self._finish_known()
            return
        while self._spans:
            keyframes = [span[0] for span in list(self._spans)[:2]]
            if not is_end and not (len(keyframes) == 2 and self._is_ready(keyframes[1])):
                return
            for position, keyframe in enumerate(keyframes):
                if keyframe.prepared is None:
                    self._combine_around(position)
            span = self._spans.popleft()
            self._finish(span[0], span, keyframes[1] if len(keyframes) > 1 and self._sees_later else None)

    def _finish_known(self) -> None:
        """Finish all frames whose keyframe is known, and keep the last keyframe."""
        while self._spans:
            span = self._spans[0]
            if span[0].prepared is None:
                self._combine_around(0)
            if unfinished := [slot for slot in span if slot.result is None]:
                self._finish(span[0], unfinished, None)
            del span[1:]
            if len(self._spans) == 1:
                return
            self._spans.popleft()

    def _is_ready(self, keyframe: _Slot) -> bool:
        """Whether all keyframes that it may use are known and computed. Until then, workers get more frames."""
        used = [span[0].own for span in self._spans if span[0].index <= keyframe.horizon]
        last = self._spans[-1][-1].index
        return last >= keyframe.horizon and all(row is not None and row.done() for row in used)

    def _combine_around(self, position: int) -> None:
        """Combine a span's keyframe with the keyframes before and after it, and prepare it for the frames around it."""
        keyframe, *others = (span[0] for span in list(self._spans)[position:])
        own = [slot.own.result().value for slot in (keyframe, *others) if slot.own and slot.index <= keyframe.horizon]
        started_s = self._tasks.clock()
        before = self._with_earlier(keyframe, own[0])
        after: WeightedLogits | None = None
        for slot, logits in reversed(list(zip(others, own[1:], strict=False))):
            after = _combined(slot, logits, after, self._steps, is_later=True)
        keyframe.prepared = self._steps.prepare(_combined(keyframe, before, after, self._steps, is_later=True))
        keyframe.seconds += self._tasks.clock() - started_s

    def _with_earlier(self, keyframe: _Slot, own: WeightedLogits) -> WeightedLogits:
        """Combine a keyframe with all before it, and keep that for the next one; a section starts from the end of the
        section before."""
        if keyframe.part == 0:
            self._before, self._latest = self._latest, None
        before = self._before = _combined(keyframe, own, self._before, self._steps, is_later=False)
        if keyframe.part == SECTION_PARTS - 1:
            self._latest = own
        elif self._latest is not None:
            self._latest = _combined(keyframe, own, self._latest, self._steps, is_later=False)
        keyframe.carry_over = before if self._latest is None else SectionEnd.of(before, self._latest)
        return before

    def _finish(self, keyframe: _Slot, frames: list[_Slot], after: _Slot | None) -> None:
        """Let workers turn ``frames``, from a keyframe on or behind it, into labels."""
        frames[-1].carried = keyframe.carry_over
        if not keyframe.is_wanted:
            for slot in frames:
                slot.result = _nothing(slot is keyframe)
            return
        others = [slot for slot in frames if slot is not keyframe]
        ends = [keyframe, *([after] if after is not None and after.image_size == keyframe.image_size else [])]
        prepared = [slot.prepared for slot in ends if slot.prepared is not None]
        low = [slot.low.result().value for slot in ends]
        length = (frames[-1].index + 1 if after is None else after.index) - keyframe.index

        def between(slot: _Slot) -> FrameBetween:
            proximity = 1 - (slot.index - keyframe.index) / length
            return FrameBetween(slot.low.result().value, slot.found, proximity, slot.label_size)

        def finish_keyframe(slots: Sequence[_Slot]) -> list[FrameResult]:
            return [self._steps.keyframe_result(prepared[0], slot.label_size) for slot in slots]

        def finish_others(slots: Sequence[_Slot]) -> list[FrameResult]:
            return self._steps.between([between(slot) for slot in slots], prepared, low)

        if keyframe.result is None:
            (keyframe.result,) = self._tasks.submit(finish_keyframe, [keyframe])
        for slot, row in zip(others, self._tasks.submit(finish_others, others), strict=True):
            slot.result = row


def _combined(
    keyframe: _Slot, own: WeightedLogits, other: WeightedLogits | None, steps: Steps, *, is_later: bool
) -> WeightedLogits:
    """Logits of a ``keyframe``, combined with those of the one after or before it, if there is one of its size."""
    found = None if other is None else keyframe.found_in(other, own, steps, is_later=is_later)
    return own if other is None or found is None else combine(own, other, found)


def _done(result: _T) -> Future[_T]:
    future: Future[_T] = Future()
    future.set_result(result)
    return future


def _nothing(is_keyframe: bool) -> _Row[FrameResult]:
    """The result of a frame whose labels are not wanted."""
    similarity = None if is_keyframe else np.zeros((0, 0), np.float32)
    return _done(_Timed(FrameResult(np.zeros((0, 0), np.uint8), 0.0, similarity=similarity), 0.0))


def reach_for(image: Image) -> int:
    """``REACH``, or less for large images. Results then depend on the image size and on nothing else."""
    return max(LEAST_REACH, min(REACH, _most_held(image)))


def _most_held(image: Image) -> int:
    return MOST_HELD_BYTES // max(1, image.nbytes)


def run_both_sides(
    network: IntervalNetwork, groups: Iterable[Group[_T]], before: CarryOver | None = None
) -> Iterator[tuple[_T, list[FrameResult]]]:
    """Yield subject and results of each of ``groups``, consecutive frames of one video in groups of any size.

    ``before`` is the carry-over of earlier frames. If ``groups`` fail, frames that wait for later ones are left
    out: a run that goes on computes them. Holds the images of ``reach_for`` frames, of those between two
    keyframes, and of a few that workers compute.
    """
    with ExitStack() as stack:
        tasks = _Tasks(network, stack)
        window = _Window(network, tasks, before)
        begun: deque[tuple[_T, list[_Slot]]] = deque()
        undecided: deque[int] = deque()
        failure: Exception | None = None
        rest = iter(groups)
        is_end, most_undecided = False, 0
        while not is_end or begun:
            try:
                group = None if is_end else next(rest, None)
            except Exception as error:  # noqa: BLE001  # raised once everything before it is done
                group, failure = None, error
            if group is not None:
                slots = window.look(group)
                begun.append((group.subject, slots))
                undecided.append(len(slots))
                tasks.throttle(group.images)
                most_undecided = min([MOST_UNDECIDED, *map(_most_held, group.images)])
                del group, slots
            else:
                is_end = True
            # While a worker combines, others get further frames.
            while (
                undecided
                and tasks.has_combined(wait=is_end or len(undecided) > most_undecided)
                and (is_end or window.may_decide(undecided[0]))
            ):
                tasks.combine(window.advance, undecided.popleft())
            if is_end:
                tasks.has_combined(wait=True)
                window.wait_for_keyframes()
                tasks.combine(window.settle, failure is None)
                tasks.has_combined(wait=True)
            while begun and (is_end or all(slot.is_done for slot in begun[0][1])):
                subject, done = begun.popleft()
                if failure is not None and any(slot.result is None for slot in done):
                    raise failure
                yield subject, [slot.finished(tasks.workers) for slot in done]
                del subject, done
        if failure is not None:
            raise failure
