"""Run on a live source until it ends or a signal ends it; all results are complete then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tfcseg.errors import LostConnection
from tfcseg.media.frames import Frame, FrameSource
from tfcseg.media.live import NewestFrames, without_gaps


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


@contextmanager
def ended_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM in the block call ``end``; a second one interrupts as usual.

    Does nothing outside of the main thread, which alone receives signals.
    """
    with ExitStack() as restored:
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

            def restore() -> None:
                for number, handler in before.items():
                    signal.signal(number, handler)

            def handle(number: int, frame: Any) -> None:
                restore()
                end()

            restored.callback(restore)
            for number, handler in before.items():
                if handler != signal.SIG_IGN:  # as in the background
                    signal.signal(number, handle)
        yield
