"""Handle Ctrl-C and SIGTERM between two training steps, so that checkpoints are consistent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_interrupts(*, patient: bool = False) -> Iterator[Callable[[], bool]]:
    """Record the first signal inside the block; a second one raises KeyboardInterrupt.

    Yields a function that returns whether there was one. ``patient`` records later signals, too: under torchrun every
    process gets one from the terminal and one from the launcher. Does nothing outside the main thread, where Python
    allows no handlers.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted and not patient:
            raise KeyboardInterrupt
        noted.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in a worker process: the terminal sends it to all processes, but the parent stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
