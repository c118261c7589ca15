"""Write frames with ffmpeg: VP9 with transparency, or lossless label maps. Shapes: H W frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import OutputError
from tfcseg.media.ffmpeg import FfmpegProcess


@dataclass(frozen=True, slots=True)
class Coding:
    """An encoder and its format."""

    pixels: str
    """ffmpeg's name of the frames' pixel format."""
    container: str
    arguments: Sequence[str]
    filters: Sequence[str] = ()


WITH_ALPHA = Coding(
    "rgba",
    "webm",
    (
        *("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-crf", "24", "-b:v", "0"),
        *("-deadline", "realtime", "-cpu-used", "6", "-row-mt", "1"),
        *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"),
    ),
    ("scale=out_color_matrix=bt709:out_range=tv", "format=yuva420p"),
)
"""VP9 in WebM, for browsers and compositing programs; colours are not premultiplied."""

LOSSLESS_GRAY = Coding("gray", "matroska", ("-c:v", "ffv1", "-color_range", "pc"))
"""Lossless FFV1 with 8 bits."""


class FrameEncoder:
    """Writes frames (H, W[, C]) uint8 to ``path`` with a ``coding``; the end of the ``with`` block completes the file.

    The same frames give the same file. After an exception in the block, the caller removes the file. Raises OutputError
    with the name ``named`` on failure.
    """

    def __init__(
        self,
        path: Path,
        coding: Coding,
        *,
        size: tuple[int, int],
        frame_rate: Fraction,
        pixel_aspect: Fraction = Fraction(1),
        named: Path | None = None,
    ) -> None:
        self._named = named or path
        height, width = size
        # Times are frame numbers, since ffmpeg would replace an unusual rate by a usual one nearby.
        filters = [f"settb={1 / frame_rate}", "setpts=N", f"setsar=sar={pixel_aspect}:max=65535", *coding.filters]
        self._encoder = FfmpegProcess(
            [
                *("-f", "rawvideo", "-pix_fmt", coding.pixels, "-video_size", f"{width}x{height}"),
                *("-framerate", str(frame_rate), "-i", "pipe:0", "-vf", ",".join(filters), "-r", str(frame_rate)),
                *coding.arguments,
                *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-f", coding.container, f"file:{path}"),
            ],
            writes_input=True,
        )

    def __enter__(self) -> FrameEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._encoder.kill()

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame of the size given at the start."""
        try:
            self._encoder.write(np.ascontiguousarray(frame).data.cast("B"))
        except BrokenPipeError:
            self._finish()
            raise OutputError(f"{self._named}: the encoder stopped taking frames") from None

    def _finish(self) -> None:
        """Wait until all frames are encoded."""
        status = self._encoder.wait()
        if status:
            raise OutputError(f"{self._named}: the encoder failed: {self._encoder.last_words() or f'status {status}'}")
