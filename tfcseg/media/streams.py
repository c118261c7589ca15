"""Read a video from a pipe or a live source: probe its beginning, then pass everything to ffmpeg.

Another ffmpeg holds the connection to a live source, and passes on its packets without decoding them.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import BinaryIO

from tfcseg.errors import InputError, LostConnection
from tfcseg.files import errors_as
from tfcseg.media.ffmpeg import VIDEO_FORMATS, FfmpegProcess
from tfcseg.media.frames import Frame, FrameSource
from tfcseg.media.probing import SourceStream, probe_readable
from tfcseg.media.source import SERVER_SCHEMES, Source

LIVE_TIMEOUT_S = 10.0
"""Time without data after which a live source is given up."""

_PROTOCOLS = {
    "http": "http,httpproxy,tcp",
    "https": "https,http,httpproxy,tcp,tls",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,udp,tcp,tls",
    "srt": "srt,udp",
}
"""Protocols that ffmpeg may use for an address; without local ones, no sender can make it read files."""
_ANALYSED_S = 3.0
_TS_SCHEMES = ("udp", "srt")  # they usually carry MPEG-TS
_TS_OPTION = "scan_all_pmts"
"""Option of MPEG-TS only. If it is off, ffmpeg goes on once it knows enough, and may wait longer for a keyframe."""
_TS_ANALYSED_S = 11.0  # x264 makes a keyframe every 250 frames, 10 s at 25 per second

_HEAD_BYTES = 4096
_CHUNK_BYTES = 1 << 16
_LONGEST_LOOK_BYTES = 256 << 20
_STOP_CHECK_S = 0.2
_SILENCE = "Input/output error"  # ffmpeg's message after a timeout
_NO_PARAMETERS = "incorrect codec parameters"  # without a keyframe, the size of the pictures is unknown


class StreamFeed:
    """Data of ``-`` (stdin), of a named pipe, or of a live source. What probing reads is kept for the decoder."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.is_hung_up = False
        """Whether we ended the connection."""
        self.failure: str | None = None
        """Why the rest of the data cannot be read, if that is so."""
        self._kept = bytearray()
        self._position = 0
        self._thread: threading.Thread | None = None
        self._open(expects_ts=source.scheme in _TS_SCHEMES)

    def _open(self, *, expects_ts: bool) -> None:
        self._stopped = threading.Event()
        self._expects_ts = expects_ts
        self._connection = _connect(self.source, expects_ts=expects_ts) if self.source.is_live else None
        self._pipe = _open_pipe(self.source.given, self._connection)

    def head(self) -> bytes:
        """First bytes of the data, up to a few kilobytes."""
        while len(self._kept) < _HEAD_BYTES and (data := self._next(_HEAD_BYTES)):
            self._kept += data
        if self._expects_ts and not self._kept and not self.is_hung_up and _TS_OPTION in self.why_ended():
            self.close()
            self._open(expects_ts=False)  # it is no MPEG-TS
            return self.head()
        return bytes(self._kept[:_HEAD_BYTES])

    def read(self, size: int, /) -> bytes:
        """Next bytes for probing, up to the limit of what is kept."""
        if self._position == len(self._kept) and len(self._kept) < _LONGEST_LOOK_BYTES:
            self._kept += self._next(size)
        data = bytes(self._kept[self._position : self._position + size])
        self._position += len(data)
        return data

    def start(self, process: FfmpegProcess) -> None:
        """Start a thread that writes all data, kept ones first, to the stdin of ``process``."""
        self._thread = threading.Thread(target=self._copy, args=(process,), name="stream-feed", daemon=True)
        self._thread.start()

    def hang_up(self) -> None:
        """End the connection to a live source, from any thread; received frames are still decoded."""
        self.is_hung_up = True
        if self._connection is not None:
            self._connection.stop()

    def why_ended(self) -> str:
        """Reason why a live source ended; waits for the end of the connection."""
        if self._connection is None:
            return ""
        status = self._connection.wait()
        words = self._connection.last_words()
        if self.source.scheme == "udp" and _SILENCE in words:
            return f"nothing came for {LIVE_TIMEOUT_S:g} s"
        if _NO_PARAMETERS in words and self.source.scheme in _TS_SCHEMES:
            return "no keyframe came in time; let the sender send one at least every few seconds"
        words = words.removeprefix("Error during demuxing: ")
        return words or (f"ffmpeg ended with status {status}" if status else "its sender closed it")

    def close(self) -> None:
        """Stop feeding and release the stream; may be called again."""
        if self._connection is not None:
            self._connection.kill()
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self._pipe.close()

    def _next(self, size: int) -> bytes:
        with errors_as(InputError, f"{self.source.name}: the stream cannot be read"):
            return self._pipe.read(size)

    def _copy(self, process: FfmpegProcess) -> None:
        try:
            process.write(bytes(self._kept))
            self._kept.clear()
            while not self._stopped.is_set():
                if select.select([self._pipe], [], [], _STOP_CHECK_S)[0]:
                    if not (data := self._next(_CHUNK_BYTES)):
                        break
                    process.write(data)
        except (BrokenPipeError, ValueError):
            pass  # ffmpeg may stop before the stream does, and its stdin is then closed on this side too
        except InputError as error:  # such as a connection that was reset
            self.failure = str(error)
        process.end_input()


def _open_pipe(name: str, connection: FfmpegProcess | None) -> BinaryIO:
    if name == "-" and sys.stdin is not None and sys.stdin.isatty():
        raise InputError("-: stdin is a terminal; pipe a video into it or name a file")
    with errors_as(InputError, f"{name}: the stream cannot be read"):
        if connection is not None:
            number = os.dup(connection.output.fileno())
        else:
            number = os.dup(0) if name == "-" else os.open(name, os.O_RDONLY)
    return os.fdopen(number, "rb", buffering=0)


def probe_stream(feed: StreamFeed) -> SourceStream:
    """Examine a stream without losing data; InputError if it does not begin with a video."""
    if feed.source.is_live and not feed.head():
        raise InputError(f"{feed.source.name}: cannot be read: {feed.why_ended()}")
    return probe_readable(feed, feed.source, feed.head())


def _connect(source: Source, *, expects_ts: bool) -> FfmpegProcess:
    """Start an ffmpeg that holds the connection and writes the video's packets to stdout, as NUT."""
    arguments = _camera_arguments(source) if source.kind == "camera" else _address_arguments(source, expects_ts)
    copied = ("-map", "0:v:0", "-c", "copy", "-f", "nut", "-flush_packets", "1", "pipe:1")
    return FfmpegProcess([*arguments, *copied], reads_output=True)


def _address_arguments(source: Source, expects_ts: bool) -> list[str]:
    timeout = f"{LIVE_TIMEOUT_S * 1e6:.0f}"
    options = ["-analyzeduration", f"{(_TS_ANALYSED_S if expects_ts else _ANALYSED_S) * 1e6:.0f}"]
    options += [f"-{_TS_OPTION}", "0"] if expects_ts else []
    if source.scheme in ("rtsp", "rtsps"):
        options += ["-rtsp_flags", "prefer_tcp", "-timeout", timeout]
    elif source.scheme == "udp":
        options += ["-timeout", timeout, "-overrun_nonfatal", "1"]
    else:
        options += ["-rw_timeout", timeout]
    formats = f"{VIDEO_FORMATS},mp4" if source.scheme in SERVER_SCHEMES else f"{VIDEO_FORMATS},mp4,rtsp,sdp"
    protocols = _PROTOCOLS.get(source.scheme, source.scheme)
    return ["-protocol_whitelist", protocols, "-format_whitelist", formats, *options, "-i", source.given]


def _camera_arguments(source: Source) -> list[str]:
    number = source.camera or 0
    if sys.platform == "darwin":
        return ["-f", "avfoundation", "-framerate", "30", "-i", f"{number}:none"]
    return ["-f", "v4l2", "-i", f"/dev/video{number}"]


_WAITING = 4  # most waiting frames; with fewer, bursts of packets would cause drops
_FILLED_SHARE = 0.5
"""Filling a gap may take this share of its length, so that slow writing does not fall behind."""


class NewestFrames(Iterator[Frame]):
    """Frames of a live source, read by a thread, for a consumer that may be too slow. Must be closed.

    If too many are waiting, all but the newest are dropped and counted, and gaps in their numbers remain. Errors are
    raised after the last frame; a run, whose results are complete then, keeps LostConnection as ``lost``.
    """

    def __init__(self, frames: FrameSource, *, is_run: bool = False) -> None:
        self.dropped = 0
        """Frames that came while the consumer was busy."""
        self.lost: LostConnection | None = None
        self._is_run = is_run
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
        if self._is_run and isinstance(error, LostConnection):
            self.lost, error = LostConnection(f"{error}; all results up to there are complete"), None
        raise StopIteration if error is None else error

    def close(self) -> None:
        """End the connection and the thread; may be called again."""
        self._frames.stop()
        if not sys.is_finalizing():  # no thread goes on then
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
                time_s = last.time_s + number / frame_rate
                yield replace(last, index=count, time_s=time_s, is_held=True, is_stand_in=True)
                count += 1
        yield replace(frame, index=count)
        last, count = frame, count + 1
