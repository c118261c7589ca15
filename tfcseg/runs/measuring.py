"""Measure every frame of a run; optical flow, the slowest part, for several frames in parallel.

Letters: H, W image height and width, K classes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import class_shares
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.machine import available_cores
from tfcseg.media.frames import Frame, Image, most_waiting
from tfcseg.metrics.consistency import ConsistencyMeter, Followed, FrameConsistency, Preset
from tfcseg.report.schema import FrameRow

_MAX_WORKERS = 4
_CORES_PER_WORKER = 4  # other cores decode, encode and, without a GPU, run the network


class MeasuredFrame(NamedTuple):
    """A frame with all its measurements."""

    frame: SegmentedFrame
    shares: NDArray[np.float64]  # (K,) share of the pixels of each class
    row: FrameRow


class FrameMeasurer:
    """Takes frames in order and returns them measured, in order; ``use_flow`` measures flow consistency, along a flow
    of that ``preset``. Labels with a probability below ``unsure_below`` are unsure.
    """

    def __init__(self, classes: int, *, use_flow: bool, unsure_below: float, preset: Preset = "medium") -> None:
        self._classes, self._unsure_below = classes, unsure_below
        self._meter = ConsistencyMeter(use_flow=use_flow, preset=preset)
        self.flow_name = self._meter.flow_name
        workers = max(1, min(_MAX_WORKERS, available_cores() // _CORES_PER_WORKER))
        self._pool = ThreadPoolExecutor(workers, "tfcseg-measure")
        self._followed: dict[int, Future[Followed | None]] = {}
        self._pending: deque[tuple[SegmentedFrame, NDArray[np.float64], Future[Followed | None] | None]] = deque()

    def remember(self, image: Image, maps: Sequence[NDArray[np.uint8]]) -> None:
        """Set the (H, W, 3) image and (H, W) labels that the next frame's are compared with."""
        self._meter.follow(image)
        self._meter.compare(maps, None)

    def follow(self, frame: Frame) -> None:
        """Start with the flow to a frame whose labels are not known yet; then all frames must be given, in order.
        InputError if the size changes."""
        self._followed[frame.index] = self._pool.submit(self._meter.follow(frame.image))

    def add(self, frame: SegmentedFrame) -> NDArray[np.float64]:
        """Start measuring ``frame``; returns the (K,) shares of its classes. InputError if the size changes."""
        shares = class_shares(frame.labels, self._classes)
        followed = self._followed.pop(frame.index, None)
        if followed is None and frame.model_ms is not None:  # what repeats the frame before has its measurements, too
            followed = self._pool.submit(self._meter.follow(frame.image))
        self._pending.append((frame, shares, followed))
        return shares

    def finished(self, max_pending: int | None = None) -> Iterator[MeasuredFrame]:
        """Return the next measured frames; waits until at most ``max_pending`` remain, by default a few."""
        if max_pending is None:
            max_pending = most_waiting(*self._pending[-1][0].labels.shape) if self._pending else 0
        while self._pending:
            followed = self._pending[0][2]
            if len(self._pending) <= max_pending and followed is not None and not followed.done():
                return
            frame, shares, _ = self._pending.popleft()
            maps = [frame.labels] if frame.steadied is None else [frame.labels, frame.steadied.given]
            changes = self._meter.repeat() if followed is None else self._meter.compare(maps, followed.result())
            yield MeasuredFrame(frame, shares, _row(frame, changes, self._unsure_below))

    def close(self) -> None:
        """Stop the threads and drop unfinished frames."""
        self._pool.shutdown(cancel_futures=True)


def _row(frame: SegmentedFrame, changes: list[FrameConsistency], unsure_below: float) -> FrameRow:
    sure, change = frame.confidence_grid, changes[0]
    before = changes[1] if len(changes) > 1 else FrameConsistency(None, None)
    return FrameRow(
        frame=frame.index,
        time_s=frame.time_s,
        is_keyframe=frame.is_keyframe,
        similarity=None if frame.similarity is None else float(frame.similarity.mean()),
        updated_fraction=frame.updated_fraction,
        label_change=change.label_change,
        flow_consistency=change.flow_consistency,
        model_ms=frame.model_ms,
        is_held=frame.is_held,
        confidence=None if sure is None else float(sure.mean()) / 255,
        unsure=None if sure is None else float((sure < 255 * unsure_below).mean()),
        label_change_before=before.label_change,
        flow_consistency_before=before.flow_consistency,
    )
