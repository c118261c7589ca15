"""Labels on disk: 8-bit palette PNG files and lossless videos whose values are class indices. Shapes: H W image."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, OutputError
from tfcseg.files import make_folder
from tfcseg.media.mask_form import Mask, MaskForm, read_header, read_values, write_values

Labels: TypeAlias = NDArray[np.uint8]

_PNG_END = b"IEND\xaeB`\x82"
_WRITERS = 2
_MAX_PENDING = 8  # frames that wait for the disk; bounds memory for any length of video


class MaskWriter:
    """Writes labels as 8-bit PNGs, ``directory/00000000.png`` etc. or ``path_of``, with a palette or gray.

    Threads encode and write, with a bounded queue. A failure is raised as OutputError by a later ``write`` or by
    ``close``. As a context manager it closes itself.
    """

    def __init__(
        self,
        directory: Path,
        palette: NDArray[np.uint8] | None = None,
        path_of: Callable[[Path, int], Path] = lambda directory, index: directory / f"{index:08d}.png",
    ) -> None:
        make_folder(directory)
        self._path_of = partial(path_of, directory)
        self._palette = None if palette is None else full_palette(palette)
        self._pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="masks")
        self._pending: deque[Future[None]] = deque()

    def write(self, index: int, labels: Labels) -> None:
        """Queue the (H, W) ``labels`` of frame ``index``; the array may be changed afterwards."""
        self._submit(write_mask, self._path_of(index), labels.copy(), self._palette)

    def write_like(self, index: int, mask: Mask, form: MaskForm) -> None:
        """Queue the (H, W) ``mask`` of frame ``index``, to be written in this form; the array must not be changed."""
        self._submit(write_values, self._path_of(index), mask, form)

    def _submit(self, write: Callable[..., None], *arguments: object) -> None:
        self._collect(_MAX_PENDING - 1)
        self._pending.append(self._pool.submit(write, *arguments))

    def pending(self) -> tuple[Future[None], ...]:
        """Files that may not be written yet, for callers that wait for them."""
        return tuple(self._pending)

    def close(self) -> None:
        """Wait until everything is written; raises OutputError unless ``write`` has raised it."""
        try:
            self._collect(0)
        finally:
            self._pool.shutdown()

    def __enter__(self) -> MaskWriter:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(OutputError):  # the error that is already being raised is the cause
                self.close()

    def _collect(self, max_pending: int) -> None:
        while self._pending and (len(self._pending) > max_pending or self._pending[0].done()):
            try:
                self._pending.popleft().result()
            except OutputError:
                while self._pending:  # the rest would fail in the same way
                    self._pending.popleft().cancel()
                raise


def write_mask(path: Path, labels: Labels, palette: bytes | None) -> None:
    """Write (H, W) ``labels`` as an 8-bit PNG, complete or not at all; OutputError on failure.

    ``palette`` is 256 times RGB; without one the PNG is gray.
    """
    write_values(path, labels, MaskForm("L", 8) if palette is None else MaskForm("P", 8, palette))


def full_palette(palette: NDArray[np.uint8]) -> bytes:
    """Extend a (K, 3) ``palette`` to 256 colours for `write_mask`; 255 (no class) is black."""
    return palette.tobytes().ljust(256 * 3, b"\0")


def is_whole_mask(path: Path) -> bool:
    """Whether a mask file is complete, which it may not be after a power cut."""
    try:
        with path.open("rb") as file:
            return file.seek(-min(len(_PNG_END), os.fstat(file.fileno()).st_size), os.SEEK_END) > 0 and (
                file.read() == _PNG_END
            )
    except OSError:
        return False


def read_mask(path: str | Path) -> Labels:
    """Read (H, W) class indices from a palette PNG or an 8-bit gray PNG; DataError for anything else."""
    header = read_header(Path(path))
    # Only these hold plain indices: Pillow stretches gray of fewer bits to 0..255.
    if not (header.is_palette or header.kind == "8-bit gray"):
        raise DataError(f"mask {str(path)!r} is a PNG of {header.kind}; masks are palette or 8-bit gray PNGs")
    return read_values(Path(path))[0].astype(np.uint8, copy=False)


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
