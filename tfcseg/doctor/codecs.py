"""Check that ffmpeg starts and has the codecs that videos need."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

from tfcseg.doctor.findings import Finding
from tfcseg.errors import TfcsegError
from tfcseg.media.ffmpeg import ask_ffmpeg, ffmpeg_path

_REINSTALL = "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to another ffmpeg"
_TIMEOUT_S = 30


_ENCODERS = {("libx264",): "writing videos", ("aac",): "their sound", ("ppm",): "reading frames"}
_DECODERS = {("h264",): "reading H.264 videos"}
_WELCOME_DECODERS = {
    ("hevc",): "HEVC (phones)",
    ("mpeg4",): "MPEG-4",
    ("mjpeg",): "Motion JPEG",
    ("vp8", "libvpx"): "VP8",
    ("vp9", "libvpx-vp9"): "VP9",
    ("libdav1d", "libaom-av1", "av1"): "AV1",
    ("prores",): "ProRes",
}
"""What codecs are for; any one of the names is enough."""
_LISTED = re.compile(r"^ [A-Z.]{6} (\S+)", re.MULTILINE)


def check_ffmpeg() -> Iterator[Finding]:
    """Start ffmpeg and read its lists of codecs."""
    try:
        path = ffmpeg_path()
        about = ask_ffmpeg(["-version"], timeout_s=_TIMEOUT_S)
    except (TfcsegError, OSError, subprocess.SubprocessError) as error:
        yield Finding("ffmpeg", "broken", f"cannot be started ({error})", _REINSTALL)
        return
    version = re.match(r"ffmpeg version (\S+)", about)
    if version is None:
        yield Finding("ffmpeg", "broken", f"{path} is not ffmpeg", _REINSTALL, {"path": path})
        return
    yield Finding("ffmpeg", "ok", f"{version[1]} at {path}", facts={"version": version[1], "path": path})
    lists = (ask_ffmpeg([kind], timeout_s=_TIMEOUT_S) for kind in ("-encoders", "-decoders"))
    yield codec_finding(*(set(_LISTED.findall(listed)) for listed in lists))


def codec_finding(encoders: set[str], decoders: set[str]) -> Finding:
    """Judge what an ffmpeg with these codecs can do."""
    lacking = [f"encoder {names[0]} ({use})" for names, use in _ENCODERS.items() if encoders.isdisjoint(names)]
    lacking += [f"decoder {names[0]} ({use})" for names, use in _DECODERS.items() if decoders.isdisjoint(names)]
    unread = [use for names, use in _WELCOME_DECODERS.items() if decoders.isdisjoint(names)]
    facts = {
        "encoders": {names[0]: not encoders.isdisjoint(names) for names in _ENCODERS},
        "decoders": {names[0]: not decoders.isdisjoint(names) for names in _DECODERS | _WELCOME_DECODERS},
    }
    if lacking:
        return Finding("codecs", "broken", f"ffmpeg lacks {', '.join(lacking)}", _REINSTALL, facts)
    if unread:
        return Finding("codecs", "note", f"videos in {', '.join(unread)} cannot be read", _REINSTALL, facts)
    return Finding("codecs", "ok", "writes H.264 with AAC, reads all usual formats", facts=facts)
