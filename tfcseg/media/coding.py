"""How videos are encoded: H.264, VP9 with transparency, or lossless label maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COMMENT = "made by tfcseg"
"""Comment in the metadata of our videos; others write files of the same names, too."""

_BT709 = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")
_REPRODUCIBLE = ("-fflags", "+bitexact", "-flags:v", "+bitexact")


@dataclass(frozen=True, slots=True)
class Coding:
    """An encoder and its format."""

    pixels: str
    """ffmpeg's name of the frames' pixel format."""
    channels: tuple[int, ...]
    """Shape of a pixel."""
    container: str
    arguments: Sequence[str]
    filters: Sequence[str] = ()
    needs_even_size: bool = False
    """Whether an odd height or width is padded."""


H264 = Coding(
    "rgb24",
    (3,),
    "mp4",
    (
        *("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p"),
        *(*_BT709, "-movflags", "+faststart"),
    ),
    (
        "scale=flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:out_color_matrix=bt709:out_range=tv",
        "format=yuv420p",
        "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv",
    ),
    needs_even_size=True,
)
"""H.264 in mp4, which all players read."""

WITH_ALPHA = Coding(
    "rgba",
    (4,),
    "webm",
    (
        *("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-crf", "24", "-b:v", "0"),
        *("-deadline", "realtime", "-cpu-used", "6", "-row-mt", "1", *_BT709, *_REPRODUCIBLE),
    ),
    ("scale=out_color_matrix=bt709:out_range=tv", "format=yuva420p"),
)
"""VP9 in WebM, for browsers and compositing programs; colours are not premultiplied."""

LOSSLESS_GRAY = Coding("gray", (), "matroska", ("-c:v", "ffv1", "-color_range", "pc", *_REPRODUCIBLE))
"""Lossless FFV1 with 8 bits."""
