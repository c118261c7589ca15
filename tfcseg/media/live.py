"""The newest frames of a live source, for a consumer that may be slow, until the source or a signal ends them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tfcseg.errors import LostConnection
from tfcseg.media.frames import Frame, FrameSource

_WAITING = 4
"""Most waiting frames; with fewer, bursts of packets would cause drops."""
_FILLED_SHARE = 0.5
"""Filling a gap may take this share of its length, so that slow writing does not fall behind."""


class NewestFrames(Iterator[Frame]):
    """Frames of a live source, read by a thread, for a consumer that may be too slow.

    If too many are waiting, all but the newest are dropped and counted. Frames keep their numbers, so gaps are visible;
    repeated pictures are left out. An error such as LostConnection is raised after the last frame. Must be closed.
    """

    def __init__(self, frames: FrameSource) -> None:
        self.dropped = 0
        """Frames that came while the consumer was busy."""
        self._frames = frames
        self._waiting: deque[Frame] = deque(maxlen=_WAITING)
        self._changed = threading.Condition()
        self._is_late = self._has_ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="tfcseg-live", daemon=True)
        self._thread.start()

    def __next__(self) -> Frame:
        with self._changed:
            while not self._waiting and not self._has_ended:
                self._changed.wait()
            while self._is_late and len(self._waiting) > 1:
                self._waiting.popleft()
                self.dropped += 1
            self._is_late = False
            if self._waiting:
                return self._waiting.popleft()
            error, self._error = self._error, None
        raise StopIteration if error is None else error

    def close(self) -> None:
        """End the connection and the thread; may be called again."""
        self._frames.stop()
        self._thread.join()

    def _read(self) -> None:
        try:
            for frame in self._frames:
                if not frame.is_held:
                    self._take(frame)
        except BaseException as error:  # noqa: BLE001  # raised again in the consumer's thread
            self._error = error
        with self._changed:
            self._has_ended = True
            self._changed.notify()

    def _take(self, frame: Frame) -> None:
        with self._changed:
            if len(self._waiting) == _WAITING:
                self._is_late = True
                self.dropped += 1
            self._waiting.append(frame)
            self._changed.notify()


def without_gaps(frames: Iterable[Frame], frame_rate: float) -> Iterator[Frame]:
    """Number ``frames`` from 0 on, and repeat frames in place of dropped ones; times are those of the source.

    Filling a gap stops after half of its duration, so that a slow consumer does not fall behind.
    """
    last: Frame | None = None
    count = 0
    for frame in frames:
        if last is not None:
            missing = frame.index - last.index - 1
            end_s = time.monotonic() + _FILLED_SHARE * missing / frame_rate
            for number in range(1, missing + 1):
                if time.monotonic() > end_s:
                    break
                yield replace(last, index=count, time_s=last.time_s + number / frame_rate, is_held=True)
                count += 1
        yield replace(frame, index=count)
        last, count = frame, count + 1


class LiveFrames:
    """Frames of a live source for a run, numbered without gaps, until the source ends."""

    def __init__(self, frames: FrameSource) -> None:
        self.lost: LostConnection | None = None
        """How the stream broke off, after the last frame; None if the run ended it."""
        self._newest = NewestFrames(frames)
        self._rate = float(frames.info.frame_rate)

    @property
    def dropped(self) -> int:
        """Number of frames that came too late to be segmented."""
        return self._newest.dropped

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from without_gaps(self._newest, self._rate)
        except LostConnection as error:
            self.lost = LostConnection(f"{error}; all results up to there are complete")

    def close(self) -> None:
        """End the connection."""
        self._newest.close()
