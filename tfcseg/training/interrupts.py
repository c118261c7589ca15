"""Ctrl-C and SIGTERM are obeyed between two steps and not in the middle of one, so that what is then saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_interrupts(*, patient: bool = False) -> Iterator[Callable[[], bool]]:
    """Inside, the first signal is only noted, which the yielded function tells; a second one raises KeyboardInterrupt.

    ``patient``: later ones are only noted too. Under torchrun every process gets the terminal's signal and then one
    more from the launcher. Outside of the main thread, where Python allows no handlers, nothing changes.
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
    """For worker processes: the terminal sends Ctrl-C to them as well, but when to stop is their parent's decision."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
