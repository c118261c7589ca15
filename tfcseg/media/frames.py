"""Types for frames of video files, streams and folders of images, and reading ahead. Shapes: H W image."""

from __future__ import annotations

import logging
import math
import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import InputError, TfcsegError, UsageError
from tfcseg.media.source import Source

logger = logging.getLogger(__name__)

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) RGB."""

MAX_PIXELS = 100_000_000
"""Limit for a frame, three times 8K, since a damaged header can claim more than fits into memory."""

FrameRange: TypeAlias = "slice[int, int | None, None]"
"""The selected part of the constant-rate sequence; without a stop, to the end."""

_ROUNDING_S = 0.001  # tolerance of limits in time: containers round times to milliseconds


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts known before the first frame is decoded."""

    source: Source
    width: int  # upright, as frames are returned
    height: int
    frame_rate: Fraction  # frames per second of the decoded, constant-rate sequence
    duration_s: float | None
    frames_declared: int | None
    """The container's frame count, else duration times rate; may be wrong, so only for progress bars."""
    rotation: int  # rotation in degrees stated by the source; frames are already upright
    audio: str | None  # codec of the audio stream that players choose
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel over its height; frames are not resized
    warnings: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # files of the frames, for folders of images

    @property
    def path(self) -> str:
        """Name of the source as the user gave it; ``-`` for stdin."""
        return self.source.name

    def frames_between(self, start_s: float | None, end_s: float | None) -> int | None:
        """Number of frames of a part of the video, if its container says how many the video has."""
        if self.frames_declared is None:
            return None
        start, end = (math.ceil(Fraction(str(time_s or 0)) * self.frame_rate) for time_s in (start_s, end_s))
        return (self.frames_declared if end_s is None else min(self.frames_declared, end)) - start


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded frame."""

    index: int  # 0-based position among the decoded frames of the selected range
    time_s: float  # time in the source, from the start of the file
    image: Image  # own memory, not changed by later frames
    is_held: bool  # whether it repeats the image before it, in the source or in place of an unreadable one
    is_stand_in: bool = False  # whether it does so in place of frames that a live source has dropped


class FrameSource:
    """Iterator of frames that owns its resources; use it as a context manager, or call ``close``.

    The first frame is decoded at once, so unreadable sources fail here (InputError). ``warnings`` grow at the end.
    """

    def __init__(
        self,
        info: VideoInfo,
        frames: Generator[Frame, None, None],
        warnings: list[str],
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._frames = frames
        self._stop = stop
        self._first: Frame | None = next(frames)
        self.info = info
        logger.info(
            "%s: read at a constant %.6g frames per second, %d×%d, turned by %d degrees; sound: %s",
            *(info.path, info.frame_rate, info.width, info.height, info.rotation, info.audio or "none"),
            extra={
                **{"frame_rate": info.frame_rate, "rotation": info.rotation, "size": (info.height, info.width)},
                **{"frames_declared": info.frames_declared, "audio": info.audio},
            },
        )
        self.frames_decoded = 0
        self.warnings = warnings

    def __iter__(self) -> FrameSource:
        return self

    def __next__(self) -> Frame:
        frame = self._first if self._first is not None else next(self._frames)
        self._first = None
        self.frames_decoded += 1
        return frame

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self.close()

    def stop(self) -> None:
        """End the frames soon, also while another thread waits for the next one; call ``close`` afterwards."""
        self._stop()

    def close(self) -> None:
        """Stop decoding and release the process or files; call it in the reading thread. May be called again."""
        self._first = None
        self._frames.close()


def check_size(name: str | Path, width: int, height: int, kind: type[TfcsegError] = InputError) -> None:
    """Raise an error of this ``kind`` if frames of ``name`` would be too large."""
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS / 1e6:g} million pixels"
        raise kind(f"{name}: pictures of {width}x{height} are not read, {limit} is the limit; scale them down")


def select_frames(
    frame_rate: Fraction, start_s: float | None, end_s: float | None, *, first_time_s: float = 0.0
) -> FrameRange:
    """Frames from ``start_s`` up to ``end_s``, exclusive, if frame 0 is at ``first_time_s``; UsageError if none."""
    for name, value in {"start_s": start_s, "end_s": end_s}.items():
        if not isinstance(value, Real | None):
            raise UsageError(f"{name} is {value!r}, not a number of seconds")
    if start_s is not None and not 0 <= start_s < float("inf"):
        raise UsageError(f"the start of the range must be 0 s or later, not {start_s:g} s")
    if end_s is not None and not end_s > (start_s or 0):
        raise UsageError(f"the end of the range ({end_s:g} s) must lie after its start ({start_s or 0:g} s)")
    first = 0 if start_s is None else _first_frame_at(start_s - first_time_s, frame_rate)
    if end_s is None or end_s == float("inf"):
        return slice(first, None)
    stop = _first_frame_at(end_s - first_time_s, frame_rate)
    if stop <= first:
        raise UsageError(
            f"no frame lies between {start_s or 0:g} s and {end_s:g} s at {float(frame_rate):g} frames per second"
        )
    return slice(first, stop)


def _first_frame_at(time_s: float, frame_rate: Fraction) -> int:
    slack = min(0.5, _ROUNDING_S * float(frame_rate))
    return max(0, int(np.ceil(time_s * float(frame_rate) - slack)))


_T = TypeVar("_T")
_MOST_WAITING, _WAITING_MIB = 8, 256


def most_waiting(height: int, width: int) -> int:
    """Most frames that may wait for each step of a run, which bounds its memory; fewer for large frames."""
    return max(2, min(_MOST_WAITING, (_WAITING_MIB << 20) // (3 * height * width)))


def prefetch(items: Iterable[_T], depth: int, stop: Callable[[], None] = lambda: None) -> Generator[_T, None, None]:
    """Yield ``items``, up to ``depth`` of which a thread reads ahead; raises their exceptions in order.

    The thread ends with the items, or when this generator is closed; no other thread uses ``items``. ``stop`` is called
    then and must end ``items`` if they may wait forever.
    """
    ready: queue.Queue[tuple[bool, _T | BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def read() -> None:
        try:
            for item in items:
                ready.put((True, item))
                if stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  # raised again in the consumer's thread
            ready.put((False, error))
        else:
            ready.put((False, None))

    thread = threading.Thread(target=read, name="tfcseg-read-ahead", daemon=True)  # Python may end first
    thread.start()
    try:
        while True:
            is_item, value = ready.get()
            if is_item:
                yield value  # type: ignore[misc]  # an item, by the flag
            elif value is None:
                return
            else:
                raise value  # type: ignore[misc]  # an exception, by the flag
    finally:
        stopped.set()
        stop()
        while thread.is_alive() and not sys.is_finalizing():  # no thread goes on then
            with suppress(queue.Empty):  # it may wait for a place
                ready.get_nowait()
            thread.join(0.01)


def prefetch_frames(frames: FrameSource) -> Generator[Frame, None, None]:
    """Read frames ahead, so that decoding overlaps with what is done with them."""
    return prefetch(frames, most_waiting(frames.info.height, frames.info.width), frames.stop)
