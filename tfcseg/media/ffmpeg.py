"""Run ffmpeg, keep its last messages, and make sure that it ends.

Names are passed in an argument list after ``file:``, so no character in them is special. Formats that refer to other
files are disabled, and network protocols are enabled only for addresses given by the user.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

import imageio_ffmpeg

from tfcseg.errors import TfcsegError, without_passwords
from tfcseg.files import errors_as
from tfcseg.media.source import Source

VIDEO_FORMATS = (
    "apng,asf,asf_o,av1,avi,dv,flv,gif,gxf,h261,h263,hevc,h264,ivf,live_flv,m4v,matroska,webm,mjpeg,mov,mpeg,mpegts,"
    "mpegvideo,mxf,nut,obu,ogg,rm,vc1,vvc,webp_anim,wtv,yuv4mpegpipe"
)
"""ffmpeg's names of formats that hold a video in one file. Playlists and scripts (hls, dash, concat, imf, sdp, …) are
excluded, since they would make ffmpeg open other files."""

LOCAL_PROTOCOLS = "file,pipe"
NETWORK_PROTOCOLS = "http,https,httpproxy,tcp,tls"
"""Protocols for an address; without local ones, no server can make ffmpeg read files."""

NETWORK_TIMEOUT_S = 30.0
"""Time without data after which a server is given up."""

_PIPE_BYTES = 1 << 20
logger = logging.getLogger(__name__)
_SOURCE_TAG = re.compile(r"^(\[[^\]]*\] )+")
_EMPTY_WORDS = re.compile(
    r"Error opening (input|output)|Task finished|Terminating thread|Conversion failed|Last message repeated"
    r"|Nothing was written|Could not open encoder|Error (muxing|submitting) a packet|To ignore this"
)


@functools.cache
def ffmpeg_path() -> str:
    """Find the ffmpeg of imageio-ffmpeg, or the one in IMAGEIO_FFMPEG_EXE; raises TfcsegError if there is none."""
    try:
        named = cast(str, imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise TfcsegError("no ffmpeg found; reinstall imageio-ffmpeg or set IMAGEIO_FFMPEG_EXE to a binary") from None
    path = shutil.which(named)
    if path is None:
        raise TfcsegError(f"no ffmpeg: {named!r} is not a program; set IMAGEIO_FFMPEG_EXE to one, or unset it")
    logger.info("ffmpeg is %s", path, extra={"ffmpeg": path})
    return path


def ask_ffmpeg(arguments: Sequence[str], *, timeout_s: float | None = None) -> str:
    """Run ffmpeg to its end; returns its output on stdout and stderr."""
    command = [ffmpeg_path(), "-hide_banner", "-nostdin", *arguments]
    output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s).stdout
    return output.decode(errors="replace")


@functools.cache
def can_tone_map() -> bool:
    """Whether ffmpeg has the filters that reduce HDR pictures; some builds do not."""
    filters = ask_ffmpeg(["-v", "error", "-filters"]).split()
    return "zscale" in filters and "tonemap" in filters


def input_arguments(source: Source | Path, options: Iterable[str] = ()) -> list[str]:
    """Arguments to open ``source`` only, through stdin if it can be read only once; ``options`` apply to this input."""
    protocols, url = LOCAL_PROTOCOLS, f"file:{source.given if isinstance(source, Source) else source}"
    if isinstance(source, Source) and not source.is_readable_again:
        url = "pipe:0"
    elif isinstance(source, Source) and source.kind == "address":
        protocols, url = NETWORK_PROTOCOLS, source.given
        options = ["-rw_timeout", f"{NETWORK_TIMEOUT_S * 1e6:.0f}", *options]
    return ["-protocol_whitelist", protocols, "-format_whitelist", f"{VIDEO_FORMATS},mp4", *options, "-i", url]


class FfmpegProcess:
    """A child process running ffmpeg, out of reach of Ctrl-C. Leaving the ``with`` block kills it if it still runs."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        writes_input: bool = False,
        reads_output: bool = False,
        passes: int | None = None,
    ) -> None:
        """Start it; it also inherits the file descriptor ``passes``."""
        command = [ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-v", "error", "-y", *arguments]
        with errors_as(TfcsegError, f"cannot start ffmpeg ({command[0]})"):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if writes_input else subprocess.DEVNULL,
                stdout=subprocess.PIPE if reads_output else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=() if passes is None else (passes,),
                # Inherit SIGXFSZ as ignored, so that ffmpeg reports a file-size limit instead of dying silently.
                restore_signals=False,
                # Some static builds crash in the system's character-set modules, on names in transport streams.
                env={**os.environ, "GCONV_PATH": os.devnull},
            )
        with contextlib.suppress(AttributeError, OSError):  # larger pipes need fewer reads; not all systems have them
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._words: deque[str] = deque(maxlen=50)
        # A thread reads stderr, so that ffmpeg never blocks on a full pipe.
        self._drain = threading.Thread(target=self._read_stderr, name="ffmpeg-stderr", daemon=True)
        self._drain.start()
        atexit.register(self.kill)  # Python cannot end while the thread waits

    def __enter__(self) -> FfmpegProcess:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self.kill()

    @property
    def output(self) -> BufferedReader:
        """Its stdout."""
        return cast(BufferedReader, self._process.stdout)

    def write(self, data: memoryview | bytes) -> None:
        """Write all of ``data`` to its stdin; BrokenPipeError once it has stopped."""
        pipe = cast(BinaryIO, self._process.stdin)
        pipe.write(data)
        pipe.flush()

    def end_input(self) -> None:
        """Close its stdin; it then finishes its output."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def wait(self) -> int:
        """Close its stdin, wait for its end and return its exit status (negative: killed by a signal)."""
        self.end_input()
        status = self._process.wait()
        self._drain.join()
        return status

    def stop(self) -> None:
        """Ask it to end, from any thread and without waiting; blocked readers and writers then return."""
        self._process.kill()

    def kill(self) -> None:
        """Kill it; does nothing if it has ended."""
        atexit.unregister(self.kill)
        self._process.kill()
        self.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def last_words(self) -> str:
        """Last message of ffmpeg as one line, or an empty string; valid after ``wait``."""
        if (self._process.returncode or 0) < 0:
            return f"killed by {signal.Signals(-self._process.returncode).name}"
        lines = [line for line in self._words if not _EMPTY_WORDS.search(line)] or list(self._words)
        return without_passwords(lines[-1].rstrip(".")) if lines else ""

    def _read_stderr(self) -> None:
        for raw in cast(BinaryIO, self._process.stderr):
            line = raw.decode(errors="replace").strip()
            if line:
                self._words.append(_SOURCE_TAG.sub("", line))
