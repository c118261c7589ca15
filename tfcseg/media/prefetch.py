"""Read ahead in a thread, a bounded number of items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from tfcseg.media.frames import Frame, FrameSource

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

    def put(entry: tuple[bool, _T | BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
        except BaseException as error:  # noqa: BLE001  # raised again in the consumer's thread
            put((False, error))
        else:
            put((False, None))

    thread = threading.Thread(target=read, name="tfcseg-read-ahead", daemon=True)
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
        thread.join()


def prefetch_frames(frames: FrameSource) -> Generator[Frame, None, None]:
    """Read frames ahead, so that decoding overlaps with what is done with them."""
    return prefetch(frames, most_waiting(frames.info.height, frames.info.width), frames.stop)
