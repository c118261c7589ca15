"""Read live sources: a connection to a camera or sender, and its newest frames for a consumer that may be slow.

ffmpeg holds the connection and passes on packets through a pipe, without decoding them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tfcseg.errors import InputError
from tfcseg.media.ffmpeg import VIDEO_FORMATS, FfmpegProcess, ffmpeg_path
from tfcseg.media.frames import Frame, FrameSource
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
_WAITING = 4
"""Most waiting frames; with fewer, bursts of packets would cause drops."""
_FILLED_SHARE = 0.5
"""Filling a gap may take this share of its length, so that slow writing does not fall behind."""


def connect(source: Source) -> FfmpegProcess:
    """Start an ffmpeg that holds the connection and writes the video's packets to stdout, as NUT."""
    arguments = _camera_arguments(source) if source.kind == "camera" else _address_arguments(source)
    copied = ("-map", "0:v:0", "-c", "copy", "-f", "nut", "-flush_packets", "1", "pipe:1")
    return FfmpegProcess([*arguments, *copied], reads_output=True)


def _address_arguments(source: Source) -> list[str]:
    timeout = f"{LIVE_TIMEOUT_S * 1e6:.0f}"
    options = ["-analyzeduration", f"{_ANALYSED_S * 1e6:.0f}"]
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
    if sys.platform == "win32":
        return ["-f", "dshow", "-i", f"video={_directshow_name(source)}"]
    return ["-f", "v4l2", "-i", f"/dev/video{number}"]


def _directshow_name(source: Source) -> str:
    """Name of the camera, since DirectShow has no numbers; InputError if there is no such camera."""
    listing = subprocess.run(
        [ffmpeg_path(), "-hide_banner", "-list_devices", "true", "-f", "dshow", "-i", "dummy"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return nth_camera(listing.stderr.decode(errors="replace"), source)


def nth_camera(listing: str, source: Source) -> str:
    """Find the camera's name in a list of DirectShow devices; InputError if there is no such camera."""
    names = re.findall(r'"([^"]+)" \(video\)', listing)
    if (number := source.camera or 0) < len(names):
        return str(names[number])
    raise InputError(f"{source.name}: there is no such camera; found: {', '.join(names) or 'none'}")


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
