"""Check that ffmpeg starts and has the codecs that videos need."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from tfcseg.doctor.findings import Finding
from tfcseg.errors import TfcsegError
from tfcseg.media.ffmpeg import ffmpeg_path

_REINSTALL = "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to another ffmpeg"
_TIMEOUT_S = 30


class _Codec(NamedTuple):
    names: tuple[str, ...]
    """Any one of these is enough."""
    use: str


_ENCODERS = (
    _Codec(("libx264",), "writing videos"),
    _Codec(("aac",), "their sound"),
    _Codec(("ppm",), "reading frames"),
)
_DECODERS = (_Codec(("h264",), "reading H.264 videos"),)
_WELCOME_DECODERS = (
    _Codec(("hevc",), "HEVC (phones)"),
    _Codec(("mpeg4",), "MPEG-4"),
    _Codec(("mjpeg",), "Motion JPEG"),
    _Codec(("vp8", "libvpx"), "VP8"),
    _Codec(("vp9", "libvpx-vp9"), "VP9"),
    _Codec(("libdav1d", "libaom-av1", "av1"), "AV1"),
    _Codec(("prores",), "ProRes"),
)
_LISTED = re.compile(r"^ [A-Z.]{6} (\S+)", re.MULTILINE)


def check_ffmpeg() -> Iterator[Finding]:
    """Start ffmpeg and read its lists of codecs."""
    try:
        path = ffmpeg_path()
        about = _ask("-version")
    except (TfcsegError, OSError, subprocess.SubprocessError) as error:
        yield Finding("ffmpeg", "broken", f"cannot be started ({error})", _REINSTALL)
        return
    version = re.match(r"ffmpeg version (\S+)", about)
    if version is None:
        yield Finding("ffmpeg", "broken", f"{path} is not ffmpeg", _REINSTALL, {"path": path})
        return
    yield Finding("ffmpeg", "ok", f"{version[1]} at {path}", facts={"version": version[1], "path": path})
    encoders, decoders = set(_LISTED.findall(_ask("-encoders"))), set(_LISTED.findall(_ask("-decoders")))
    yield codec_finding(encoders, decoders)


def codec_finding(encoders: set[str], decoders: set[str]) -> Finding:
    """Judge what an ffmpeg with these codecs can do."""
    lacking = [f"encoder {codec.names[0]} ({codec.use})" for codec in _ENCODERS if encoders.isdisjoint(codec.names)]
    lacking += [f"decoder {codec.names[0]} ({codec.use})" for codec in _DECODERS if decoders.isdisjoint(codec.names)]
    unread = [codec.use for codec in _WELCOME_DECODERS if decoders.isdisjoint(codec.names)]
    facts = {
        "encoders": {codec.names[0]: not encoders.isdisjoint(codec.names) for codec in _ENCODERS},
        "decoders": {codec.names[0]: not decoders.isdisjoint(codec.names) for codec in _DECODERS + _WELCOME_DECODERS},
    }
    if lacking:
        return Finding("codecs", "broken", f"ffmpeg lacks {', '.join(lacking)}", _REINSTALL, facts)
    if unread:
        return Finding("codecs", "note", f"videos in {', '.join(unread)} cannot be read", _REINSTALL, facts)
    return Finding("codecs", "ok", "writes H.264 with AAC, reads all usual formats", facts=facts)


def _ask(question: str) -> str:
    done = subprocess.run(
        [ffmpeg_path(), "-hide_banner", question],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.stdout.decode(errors="replace")
