"""Label maps as one lossless video: gray values are class indices.

Letters: H, W image height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from tfcseg.errors import DataError, OutputError
from tfcseg.media.masks import Labels

_CODEC = "ffv1"


@contextmanager
def write_label_video(
    path: Path, size: tuple[int, int], frame_rate: Fraction, pixel_aspect: Fraction = Fraction(1)
) -> Iterator[Callable[[Labels], None]]:
    """Write ``path``, an .mkv of FFV1, while the block gives it each frame's labels of ``size`` (height, width).

    OutputError if that fails.
    """
    try:
        # Bit-exact: without the time and random numbers, so that the same labels make the same file.
        with av.open(f"file:{path}", "w", format="matroska", options={"fflags": "+bitexact"}) as container:
            # A time base of one frame: as a rate alone, a usual one nearby might be taken for it.
            stream = cast(VideoStream, container.add_stream(_CODEC, rate=frame_rate))
            stream.height, stream.width = size
            stream.pix_fmt = "gray"
            stream.codec_context.time_base = 1 / frame_rate
            stream.codec_context.sample_aspect_ratio = pixel_aspect
            stream.codec_context.color_range = 2  # all values from 0 to 255
            written = 0

            def add(labels: Labels) -> None:
                nonlocal written
                frame = av.VideoFrame.from_ndarray(labels, format="gray")
                frame.pts = written
                written += 1
                container.mux(stream.encode(frame))

            yield add
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def read_label_video(path: Path) -> Iterator[Labels]:
    """(H, W) labels of each frame of what `write_label_video` wrote, or of any lossless gray .mkv.

    DataError for a file that cannot be read, and for colours, which are no class indices.
    """
    try:
        with path.open("rb") as file, av.open(file, "r", format="matroska") as container:
            if not container.streams.video:
                raise DataError(f"{path}: holds no video")
            stream = container.streams.video[0]
            if stream.codec_context.name != _CODEC or stream.pix_fmt != "gray":
                kind = f"{stream.codec_context.name} of {stream.pix_fmt}"
                raise DataError(f"{path}: is {kind}; label maps are FFV1 of 8-bit gray")
            for frame in container.decode(stream):
                yield np.ascontiguousarray(frame.to_ndarray())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, av.FFmpegError) as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
