"""Let work finish in order after Ctrl-C or SIGTERM, and workers end with the process that they work for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process, resource_tracker
from types import FrameType


@contextmanager
def noted_interrupts(
    on_first: Callable[[], None] = lambda: None, *, patient: bool = False, keeps_ignored: bool = False
) -> Iterator[Callable[[], bool]]:
    """Record the first signal inside the block and call ``on_first``; a second one raises KeyboardInterrupt.

    Yields a function that returns whether there was one. ``patient`` records later signals, too: under torchrun every
    process gets one from the terminal and one from the launcher. ``keeps_ignored`` leaves signals alone that are
    ignored, as in the background. Does nothing outside the main thread, where Python allows no handlers.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted and not patient:
            raise KeyboardInterrupt
        noted.append(number)
        if len(noted) == 1:
            on_first()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            # None: it was not installed from Python, and could not be restored.
            if handler is not None and not (keeps_ignored and handler == signal.SIG_IGN):
                previous[number] = signal.signal(number, note)
        yield lambda: bool(noted)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def unseen_interrupts() -> Iterator[None]:
    """Processes started inside never receive Ctrl-C, which the terminal sends to all; this one does, after the block.
    Unlike `ignore_interrupts` this works from their first moment on."""
    resource_tracker.ensure_running()  # multiprocessing starts it with the first process, and unblocks signals then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C and SIGTERM in a worker process: all processes may get them, but the parent stops its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def end_with_parent() -> None:
    """End this process when its parent has ended, also if that was killed: a worker would wait for tasks forever."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="tfcseg-parent", daemon=True).start()
