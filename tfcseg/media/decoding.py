"""Decode with ffmpeg, which returns pictures and their times through two pipes.

Pictures are in PPM format or, with alpha, PAM, which state their sizes, so files with a wrong size in the header are
read correctly.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from tfcseg.media.ffmpeg import input_arguments
from tfcseg.media.frames import MAX_PIXELS, FrameRange, Image, VideoInfo
from tfcseg.media.images import composite_on_black
from tfcseg.media.probing import SourceStream

_EXACT_RGB = "flags=bicubic+accurate_rnd+full_chroma_int"
"""Converts with the stream's matrix and range and rounds to the nearest level. Planar RGB is an intermediate format,
since swscale is three times faster at it than at packed RGB with these flags; packing takes almost no time."""
_SEEK_MARGIN_S = 1.0
"""Seeking may land after the frame shown at the requested time; seeking this much earlier cannot."""
_LONGEST_DECODED_LEAD_S = 5.0
_LONGEST_GAP_S, _SHORTEST_GAP_S = 3600, 60
"""Longest plausible gap between two frames, for streams of unknown and of very short length."""
_MOST_REPEATED = 500_000
_LEFT_MARGIN = 3
"""Frames decoded before the first one of a range, since times are rounded."""
_TIME = re.compile(rb"frame:\d+ +pts:(-?\d+)")
_OPAQUE = 255


def decode_arguments(stream: SourceStream, wanted: FrameRange, times: int, *, is_piped: bool) -> list[str]:
    """Arguments for ffmpeg to return pictures, from the one shown when the range begins.

    Times are written to the file descriptor ``times``.
    """
    info = stream.info
    lead_s = float(wanted.first / info.frame_rate)
    options = ["-max_pixels", str(MAX_PIXELS), "-dts_error_threshold", f"{longest_gap(info) / 30:.6f}"]
    options += [] if stream.decoder is None else ["-c:v", stream.decoder]
    options += ["-thread_type", "slice"] if info.source.is_live else []  # frame threads delay a frame per thread
    options += ["-copyts"] if stream.keeps_times else []
    options += [] if stream.is_timed else ["-r", str(info.frame_rate)]
    if stream.is_seekable and not is_piped and lead_s > _LONGEST_DECODED_LEAD_S:
        options += ["-noaccurate_seek", "-ss", f"{stream.first_time_s + lead_s - _SEEK_MARGIN_S:.6f}"]
    filters = ["settb=AVTB", *_skip(stream, lead_s)]
    filters += ["metadata=mode=add:key=k:value=v", rf"metadata=mode=print:direct=1:file='pipe\:{times}'"]
    filters += ["setpts=N"]  # write all pictures, whatever their times
    filters += ["setparams=colorspace=bt709"] if stream.is_untagged_hd else []
    planar, packed = ("gbrap", "rgba") if stream.has_alpha else ("gbrp", "rgb24")
    size = f"{info.width}:{info.height}"  # of the first picture, if that is known; others are fitted into it
    fit, pad = (
        (f"{size}:force_original_aspect_ratio=decrease:", [f"pad={size}:-1:-1"]) if stream.is_decodable else ("", [])
    )
    filters += [f"scale={fit}{_EXACT_RGB}", f"format={planar}", *pad]
    return [
        *input_arguments(None if is_piped else info.source, options),
        *("-map", f"0:{stream.index}", "-vf", ",".join([*filters, "scale", f"format={packed}"])),
        *(("-flush_packets", "1") if info.source.is_live else ()),
        *("-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "pam" if stream.has_alpha else "ppm", "pipe:1"),
    ]


def _skip(stream: SourceStream, lead_s: float) -> list[str]:
    """Filters that drop frames before the one shown ``lead_s`` after frame 0, if times are known."""
    before = bisect.bisect_right(stream.times.times_s, lead_s)
    if before < _LEFT_MARGIN or stream.decoder_zero_s is None or not stream.is_timed:
        return []
    return [f"trim=start={stream.decoder_zero_s + stream.times.times_s[before - _LEFT_MARGIN] - 0.0005:.6f}"]


def longest_gap(info: VideoInfo) -> int:
    """Most frames that are repeated before a late one; with a longer gap its time counts as damaged.

    Otherwise a wrong bit in a time could produce years of repeated frames.
    """
    longest_s = _LONGEST_GAP_S if info.duration_s is None else max(_SHORTEST_GAP_S, info.duration_s)
    return max(1, min(_MOST_REPEATED, int(longest_s * info.frame_rate)))


class Pictures:
    """Reads pictures and their times from ffmpeg's pipes."""

    def __init__(self, stream: SourceStream, times: BinaryIO) -> None:
        self._stream, self._times = stream, times
        self._zero_s = stream.decoder_zero_s
        self.had_alpha = False
        """Whether any pixel was not opaque."""

    def read(self, pipe: BinaryIO) -> Iterator[tuple[float | None, Image]]:
        """Yield seconds after frame 0 (None if there are no times), and (H, W, 3) RGB in its own memory."""
        while (picture := _read_picture(pipe)) is not None:
            time_s = self._next_time()
            if self._zero_s is None:
                self._zero_s = time_s
            if time_s is not None:
                time_s -= self._zero_s or 0.0
            yield (time_s if self._stream.is_timed else None), self._opaque(picture)

    def _next_time(self) -> float | None:
        for line in self._times:
            if (found := _TIME.match(line)) is not None:
                return int(found[1]) / 1e6
            if line.startswith(b"frame:"):  # there is no alpha
                return None
        return None

    def _opaque(self, picture: Image) -> Image:
        if picture.shape[2] == 3:
            return picture
        colours = np.ascontiguousarray(picture[..., :3])
        if picture[..., 3].min() == _OPAQUE:
            return colours
        self.had_alpha = True
        return composite_on_black(picture)


def _read_picture(pipe: BinaryIO) -> Image | None:
    """Read the next PPM or PAM picture, (H, W, 3) RGB or (H, W, 4) RGBA; None at the end or if it is cut off."""
    kind = pipe.readline()
    if kind == b"P6\n":
        width, height = (int(number) for number in pipe.readline().split())
        pipe.readline()  # the largest value, 255
        shape = (height, width, 3)
    elif kind == b"P7\n":
        header = dict(line.split(None, 1) for line in iter(pipe.readline, b"ENDHDR\n"))
        shape = (int(header[b"HEIGHT"]), int(header[b"WIDTH"]), int(header[b"DEPTH"]))
    else:
        return None
    image = np.empty(shape, np.uint8)
    unread = image.data.cast("B")
    while unread:
        size = pipe.readinto(unread)  # type: ignore[attr-defined]
        if not size:
            return None
        unread = unread[size:]
    return image
