"""Read label maps from a lossless video, whose gray values are class indices. Shapes: H W frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from tfcseg.errors import DataError
from tfcseg.media.masks import Labels


def read_label_video(path: Path) -> Iterator[Labels]:
    """Yield (H, W) labels of each frame of an .mkv with 8-bit gray FFV1, as exports write it.

    Raises DataError for a file that cannot be read or has colours.
    """
    try:
        with path.open("rb") as file, av.open(file, "r", format="matroska") as container:
            if not container.streams.video:
                raise DataError(f"{path}: holds no video")
            stream = container.streams.video[0]
            if stream.codec_context.name != "ffv1" or stream.pix_fmt != "gray":
                kind = f"{stream.codec_context.name} of {stream.pix_fmt}"
                raise DataError(f"{path}: is {kind}; label maps are FFV1 of 8-bit gray")
            for frame in container.decode(stream):
                yield np.ascontiguousarray(frame.to_ndarray())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, av.FFmpegError) as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
