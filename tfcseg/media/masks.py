"""Write and read labels as 8-bit palette PNG files whose values are class indices.

Letters: H image height, W image width, K classes.
"""

from __future__ import annotations

import io
import os
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

from tfcseg.errors import DataError, OutputError
from tfcseg.files import make_folder, replace_atomically
from tfcseg.media.mask_form import Mask, MaskForm, write_values

Labels: TypeAlias = NDArray[np.uint8]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_PNG_COLOUR_TYPES = {0: "gray", 2: "RGB colour", 3: "palette", 4: "gray with alpha", 6: "RGB colour with alpha"}
_WRITERS = 2
_MAX_PENDING = 8  # frames that wait for the disk; bounds memory for any length of video


class MaskWriter:
    """Writes labels as ``directory/00000000.png``, ...: 8-bit palette PNGs whose values are class indices.

    Without a palette they are 8-bit gray PNGs of any values. ``path_of`` gives them other names.

    Encoding and writing run in a small thread pool behind a bounded queue. A failure is raised once, as OutputError, by
    a later ``write`` or at the latest by ``close``. As a context manager it closes itself.
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
        """Queue the (H, W) ``mask`` of frame ``index``, to be stored in this form; it must not be changed."""
        self._submit(write_values, self._path_of(index), mask, form)

    def _submit(self, write: Callable[..., None], *arguments: object) -> None:
        self._collect(_MAX_PENDING - 1)
        self._pending.append(self._pool.submit(write, *arguments))

    def pending(self) -> tuple[Future[None], ...]:
        """Files that may not be written yet, for callers that wait for them elsewhere."""
        return tuple(self._pending)

    def close(self) -> None:
        """Wait until everything is written; raises a failure unless ``write`` has raised it."""
        try:
            self._collect(0)
        finally:
            self._pool.shutdown()

    def __enter__(self) -> MaskWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
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
    """Write (H, W) ``labels`` as an 8-bit palette PNG that appears complete or not at all; OutputError on failure.

    ``palette`` is 256 times RGB; without one it is a gray PNG.
    """
    picture = PIL.Image.fromarray(labels)
    if palette is not None:
        picture.putpalette(palette)
    note = PngInfo()
    note.add_text("Software", "tfcseg")
    # Labels are runs: at 720p the run-length strategy gives 16 KB in 2 ms; plain level 1 gives 23 KB in the same time,
    # level 6 gives 16 KB in 6 ms, stored 923 KB. bits=8 keeps Pillow from packing small palettes.
    how: dict[str, Any] = {} if palette is None else {"bits": 8, "compress_type": zlib.Z_RLE}
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        picture.save(file, "PNG", compress_level=1, pnginfo=note, **how)


def full_palette(palette: NDArray[np.uint8]) -> bytes:
    """(K, 3) ``palette`` for `write_mask`: filled up, so that 255 (no class) has a colour, black."""
    return palette.tobytes().ljust(256 * 3, b"\0")


def is_whole_mask(path: Path) -> bool:
    """Whether a mask is completely on disk: after a power cut its name may exist without all of its content."""
    try:
        with path.open("rb") as file:
            return file.seek(-min(len(_PNG_END), os.fstat(file.fileno()).st_size), os.SEEK_END) > 0 and (
                file.read() == _PNG_END
            )
    except OSError:
        return False


def read_mask(path: str | Path) -> Labels:
    """(H, W) class indices of a palette PNG or an 8-bit gray PNG.

    Raises DataError for anything else, such as a colour picture, whose colours are no indices.
    """
    name = repr(str(path))
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read mask {name}: {error.strerror or error}") from error
    if data[:8] != _PNG_SIGNATURE or data[12:16] != b"IHDR" or len(data) < 26:
        raise DataError(f"mask {name} is not a PNG file; masks are palette or 8-bit gray PNGs")
    depth, colour_type = data[24], data[25]
    # Only these hold plain indices: Pillow stretches gray of fewer bits to 0..255.
    if not (colour_type == 3 or (colour_type == 0 and depth == 8)):
        kind = _PNG_COLOUR_TYPES.get(colour_type, "unknown")
        raise DataError(f"mask {name} is a PNG of {depth}-bit {kind}; masks are palette or 8-bit gray PNGs")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            return np.array(picture, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise DataError(f"mask {name} is damaged: {error}") from error
