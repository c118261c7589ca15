"""Videos with transparency: VP9 in WebM, which browsers and compositing programs read.

Letters: H, W image height and width.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import OutputError
from tfcseg.media.ffmpeg import FfmpegProcess

_QUALITY = ("-crf", "24", "-b:v", "0", "-deadline", "realtime", "-cpu-used", "6", "-row-mt", "1")


class AlphaVideoWriter:
    """Writes (H, W, 4) RGBA frames, not premultiplied, to ``path``, a .webm; ``close`` completes it.

    As a context manager it closes at the end of the block; whoever leaves it by an exception removes the file.
    OutputError, which calls the video ``named``, if it cannot be written.
    """

    def __init__(
        self, path: Path, *, size: tuple[int, int], frame_rate: Fraction, pixel_aspect: Fraction, named: Path
    ) -> None:
        self._named = named
        height, width = size
        numbered = f"settb={1 / frame_rate},setpts=N,setsar=sar={pixel_aspect}:max=65535"
        colours = "scale=out_color_matrix=bt709:out_range=tv,format=yuva420p"
        self._encoder = FfmpegProcess(
            [
                *("-f", "rawvideo", "-pix_fmt", "rgba", "-video_size", f"{width}x{height}"),
                *("-framerate", str(frame_rate), "-i", "pipe:0", "-vf", f"{numbered},{colours}", "-r", str(frame_rate)),
                *("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", *_QUALITY),
                *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"),
                *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-f", "webm", f"file:{path}"),
            ],
            writes_input=True,
        )

    def __enter__(self) -> AlphaVideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._encoder.kill()

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Append one frame, (H, W, 4) RGBA of the size given at the start."""
        try:
            self._encoder.write(np.ascontiguousarray(picture).data.cast("B"))
        except BrokenPipeError:
            self.close()
            raise OutputError(f"{self._named}: the encoder stopped taking frames") from None

    def close(self) -> None:
        """Wait until all frames are encoded."""
        status = self._encoder.wait()
        if status:
            raise OutputError(f"{self._named}: the encoder failed: {self._encoder.last_words() or f'status {status}'}")
