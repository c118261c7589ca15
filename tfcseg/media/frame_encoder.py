"""Write frames with ffmpeg: H.264, VP9 with transparency, or lossless label maps. Shapes: H W frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import OutputError
from tfcseg.media.ffmpeg import FfmpegProcess

_BT709 = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")
COMMENT = "made by tfcseg"
"""Comment in the metadata of our videos; others write files of the same names, too."""
_REPRODUCIBLE = ("-fflags", "+bitexact", "-flags:v", "+bitexact")


@dataclass(frozen=True, slots=True)
class Coding:
    """An encoder and its format."""

    pixels: str
    """ffmpeg's name of the frames' pixel format."""
    container: str
    arguments: Sequence[str]
    filters: Sequence[str] = ()
    needs_even_size: bool = False
    """Whether an odd height or width is padded."""


H264 = Coding(
    "rgb24",
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
    "webm",
    (
        *("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-crf", "24", "-b:v", "0"),
        *("-deadline", "realtime", "-cpu-used", "6", "-row-mt", "1", *_BT709, *_REPRODUCIBLE),
    ),
    ("scale=out_color_matrix=bt709:out_range=tv", "format=yuva420p"),
)
"""VP9 in WebM, for browsers and compositing programs; colours are not premultiplied."""

LOSSLESS_GRAY = Coding("gray", "matroska", ("-c:v", "ffv1", "-color_range", "pc", *_REPRODUCIBLE))
"""Lossless FFV1 with 8 bits."""


class FrameEncoder:
    """Writes frames (H, W[, C]) uint8 to ``path`` with a ``coding``; the end of the ``with`` block completes the file.

    Players show pixels ``pixel_aspect`` times as wide as high. After an exception in the block, the caller removes the
    file. Raises OutputError with the name ``named`` on failure.
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
        self.frames_written = 0
        height, width = size
        # Times are frame numbers, since ffmpeg would replace an unusual rate by a usual one nearby.
        filters = [f"settb={1 / frame_rate}", "setpts=N"]
        if coding.needs_even_size and (height % 2 or width % 2):
            # Repeat the last row or column; black would bleed into the picture.
            edge = f"right={width % 2}:bottom={height % 2}:mode=smear"
            filters += ["format=gbrp", f"pad={width + width % 2}:{height + height % 2}", f"fillborders={edge}"]
        filters += [*coding.filters, f"setsar=sar={pixel_aspect}:max=65535"]
        self._process = FfmpegProcess(
            [
                *("-f", "rawvideo", "-pix_fmt", coding.pixels, "-video_size", f"{width}x{height}"),
                *("-framerate", str(frame_rate), "-i", "pipe:0", "-vf", ",".join(filters), "-r", str(frame_rate)),
                *(*coding.arguments, "-metadata", f"comment={COMMENT}", "-f", coding.container, f"file:{path}"),
            ],
            writes_input=True,
        )

    def __enter__(self) -> FrameEncoder:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.kill()

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame of the size given at the start."""
        try:
            self._process.write(np.ascontiguousarray(frame).data.cast("B"))
        except BrokenPipeError:
            self.finish()
            raise OutputError(f"{self._named}: the encoder stopped taking frames") from None
        self.frames_written += 1

    def end_input(self) -> None:
        """Announce that no more frames follow, so that the encoder can finish in parallel. Optional."""
        self._process.end_input()

    def finish(self) -> None:
        """Wait until all frames are encoded; OutputError if the encoder failed."""
        status = self._process.wait()
        if status:
            reason = self._process.last_words() or f"status {status}"
            raise OutputError(f"{self._named}: the encoder failed after {self.frames_written} frames: {reason}")

    def stop(self) -> None:
        """Make a ``write`` that waits in another thread fail; call ``kill`` afterwards."""
        self._process.stop()

    def kill(self) -> None:
        """End the encoder, which leaves an unfinished file unless it has finished."""
        self._process.kill()
