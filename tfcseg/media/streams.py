"""Read a video from a pipe: probe its beginning, then hand all of it to ffmpeg."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from typing import BinaryIO

from tfcseg.errors import InputError
from tfcseg.media.ffmpeg import FfmpegProcess
from tfcseg.media.probing import SourceStream, probe_readable, require_beginning
from tfcseg.media.source import Source

_HEAD_BYTES = 4096
_CHUNK_BYTES = 1 << 16
_LONGEST_LOOK_BYTES = 256 << 20
_STOP_CHECK_S = 0.2


class StreamFeed:
    """Bytes of ``-`` (stdin) or of a named pipe. What probing reads is kept, and replayed to the decoder."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._pipe = _open_pipe(source.given)
        self._kept = bytearray()
        self._position = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def head(self) -> bytes:
        """How the data begin, up to a few kilobytes."""
        while len(self._kept) < _HEAD_BYTES and self._keep(_HEAD_BYTES):
            pass
        return bytes(self._kept[:_HEAD_BYTES])

    def read(self, size: int, /) -> bytes:
        """Next bytes for probing. They end early once probing has looked at more than it can keep."""
        if self._position == len(self._kept) and len(self._kept) < _LONGEST_LOOK_BYTES:
            self._keep(size)
        data = bytes(self._kept[self._position : self._position + size])
        self._position += len(data)
        return data

    def start(self, process: FfmpegProcess) -> None:
        """Begin to write everything, what was kept first, to the stdin of ``process``, in a thread."""
        self._thread = threading.Thread(target=self._copy, args=(process,), name="stream-feed", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop feeding and let go of the stream; may be called again."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self._pipe.close()

    def _keep(self, size: int) -> bool:
        data = self._pipe.read(size)
        self._kept += data
        return bool(data)

    def _copy(self, process: FfmpegProcess) -> None:
        # ffmpeg may stop before the stream does, and its stdin is then closed on this side too.
        with contextlib.suppress(BrokenPipeError, ValueError):
            data = bytes(self._kept)
            self._kept.clear()
            while data:
                process.write(data)
                data = self._next_chunk()
        process.end_input()

    def _next_chunk(self) -> bytes:
        """Wait for data, looking up now and then whether anybody still wants them."""
        while not self._stopped.is_set():
            if select.select([self._pipe], [], [], _STOP_CHECK_S)[0]:
                return self._pipe.read(_CHUNK_BYTES)
        return b""


def _open_pipe(name: str) -> BinaryIO:
    if name == "-" and sys.stdin is not None and sys.stdin.isatty():
        raise InputError("-: stdin is a terminal; pipe a video into it or name a file")
    try:
        number = os.dup(0) if name == "-" else os.open(name, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{name}: the stream cannot be read: {error.strerror}") from None
    return os.fdopen(number, "rb", buffering=0)


def probe_stream(feed: StreamFeed) -> SourceStream:
    """Look into a stream without losing a byte of it; InputError if no video begins there."""
    return require_beginning(probe_readable(feed, feed.source, feed.head()))
