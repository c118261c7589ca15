"""Labels on disk: index PNGs, and lossless videos whose values are class indices. Shapes: H W image."""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import av
import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

from tfcseg.errors import DataError, OutputError
from tfcseg.files import errors_as, make_folder, replace_atomically
from tfcseg.media.frames import check_size
from tfcseg.media.images import open_picture
from tfcseg.media.probing import open_container

Mask: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W) values: class indices or ids of instances."""

Colours: TypeAlias = Mapping[tuple[int, int, int], int]
"""RGB colour -> value, for colour masks."""

Labels: TypeAlias = NDArray[np.uint8]

_PNG_SIGNATURE, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_Entry = TypeVar("_Entry", np.uint8, np.uint16)

_PALETTE = 3
_COLOUR_TYPES = {0: "gray", 2: "RGB colour", _PALETTE: "palette", 4: "gray with alpha", 6: "RGB colour with alpha"}


class PngHeader(NamedTuple):
    """Facts in the first bytes of a PNG."""

    size: tuple[int, int]  # (height, width)
    bits: int
    colour_type: int

    @property
    def is_colour(self) -> bool:
        """Whether pixels are colours, not values."""
        return self.colour_type in (2, 6)

    @property
    def kind(self) -> str:
        """Depth and colour type in words."""
        return f"{self.bits}-bit {_COLOUR_TYPES.get(self.colour_type, 'unknown')}"


@dataclass(frozen=True, slots=True)
class MaskForm:
    """How a mask is stored, to store another one in the same way."""

    mode: str  # Pillow's: ``P``, ``L``, ``1``, ``I;16`` or ``RGB``
    bits: int
    palette: bytes | None = None  # RGB of the values, for modes ``P`` and ``RGB``
    transparency: int | bytes | None = None

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Type of the values."""
        return np.uint16 if self.mode == "I;16" else np.uint8


def read_header(path: Path) -> PngHeader:
    """Read the header of a mask; DataError if it is not a PNG, too large, or of a kind that cannot hold values."""
    with errors_as(DataError, f"cannot read mask {str(path)!r}"), path.open("rb") as file:
        start = file.read(26)
    if start[:8] != _PNG_SIGNATURE or start[12:16] != b"IHDR" or len(start) < 26:
        raise DataError(f"mask {str(path)!r} is not a PNG file; masks are index PNGs")
    width, height, bits, colour_type = struct.unpack(">IIBB", start[16:26])
    check_size(f"mask {str(path)!r}", width, height, DataError)
    header = PngHeader((height, width), bits, colour_type)
    is_gray = colour_type == 0 and bits in (1, 8, 16)
    if not (is_gray or colour_type == _PALETTE or (header.is_colour and bits == 8)):
        raise DataError(
            f"mask {str(path)!r} is a PNG of {header.kind}; give palette PNGs, or gray ones of 8 or 16 bits"
        )
    return header


def read_values(path: Path, colours: Colours | None = None) -> tuple[Mask, MaskForm]:
    """Read (H, W) values of an index PNG, and its form; DataError for anything else.

    ``colours`` maps the colours of a colour PNG to values.
    """
    header = read_header(path)
    try:
        with open_picture(path, ("PNG",)) as picture:
            if header.is_colour:
                return _of_colours(path, np.asarray(picture.convert("RGB")), colours or {})
            palette = bytes(picture.getpalette() or []) if picture.mode == "P" else None
            form = MaskForm(picture.mode, header.bits, palette, picture.info.get("transparency"))
            values = np.asarray(picture)
            return values.astype(np.uint16) if form.mode == "I;16" else values.astype(np.uint8), form
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise DataError(f"mask {str(path)!r} is damaged: {error}") from error


def count_values(mask: Mask) -> NDArray[np.int64]:
    """Count the pixels of each value in an (H, W) mask: (256,), or (65536,) for 16 bits."""
    values = 1 << (8 * mask.dtype.itemsize)
    return cv2.calcHist([mask], [0], None, [values], [0, values]).ravel().astype(np.int64)


def look_up(table: NDArray[_Entry], mask: Mask) -> NDArray[_Entry]:
    """Look up the values of a mask in ``table`` (256,), or (65536,) for 16 bits: (H, W)."""
    found: Any = cv2.LUT(mask, table) if mask.dtype == np.uint8 else np.take(table, mask)
    return np.asarray(found, table.dtype)


def write_values(path: Path, mask: Mask, form: MaskForm) -> None:
    """Write an (H, W) ``mask`` in a given form, complete or not at all; OutputError on failure."""
    # Labels are runs: at 720p, Z_RLE gives 16 KB in 2 ms; plain level 1 gives 23 KB in 2 ms, level 6 16 KB in 6 ms.
    options: dict[str, Any] = {"compress_type": zlib.Z_RLE}
    if form.mode == "RGB":
        picture = PIL.Image.fromarray(np.frombuffer(form.palette or b"", np.uint8).reshape(256, 3)[mask])
    elif form.mode == "1":
        picture = PIL.Image.fromarray(mask.astype(np.bool_))
    else:
        picture = PIL.Image.fromarray(mask)
    if form.mode == "P":
        picture.putpalette(form.palette or b"")
        options["bits"] = form.bits
    if form.transparency is not None:
        options["transparency"] = form.transparency
    note = PngInfo()
    note.add_text("Software", "tfcseg")
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        picture.save(file, "PNG", compress_level=1, pnginfo=note, **options)


def _of_colours(path: Path, pixels: NDArray[np.uint8], colours: Colours) -> tuple[Mask, MaskForm]:
    table = np.full(1 << 24, -1, np.int16)  # value of each colour
    palette = np.zeros((256, 3), np.uint8)
    for (red, green, blue), value in colours.items():
        table[red << 16 | green << 8 | blue] = value
        palette[value] = red, green, blue
    red, green, blue = np.moveaxis(pixels.astype(np.int32), 2, 0)
    values = table[red << 16 | green << 8 | blue]
    if values.min() < 0:
        foreign = tuple(pixels[values < 0][0].tolist())
        raise DataError(
            f"mask {str(path)!r} has the colour {foreign}, which no class has; "
            "--classes-json gives each class its colour"
        )
    return values.astype(np.uint8), MaskForm("RGB", 8, palette.tobytes())


_WRITERS = 2
_MAX_PENDING = 8  # frames that wait for the disk; bounds memory for any length of video


class MaskWriter:
    """Writes labels as 8-bit PNGs, ``directory/00000000.png`` etc. or ``path_of``, with a palette or gray.

    Threads encode and write. A failure is raised as OutputError by a later ``write`` or by ``close``.
    """

    def __init__(
        self,
        directory: Path,
        palette: NDArray[np.uint8] | None = None,
        path_of: Callable[[Path, int], Path] = lambda directory, index: directory / f"{index:08d}.png",
    ) -> None:
        make_folder(directory)
        self._path_of = partial(path_of, directory)
        self._form = _form_of(palette)
        self._pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="masks")
        self._pending: deque[Future[None]] = deque()

    def write(self, index: int, mask: Mask, form: MaskForm | None = None) -> None:
        """Queue the (H, W) ``mask`` of frame ``index``, in a given form if there is one."""
        self._collect(_MAX_PENDING - 1)
        self._pending.append(self._pool.submit(write_values, self._path_of(index), mask.copy(), form or self._form))

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


def write_mask(path: Path, labels: Labels, palette: NDArray[np.uint8] | None = None) -> None:
    """Write (H, W) ``labels`` as an 8-bit PNG, complete or not at all; OutputError on failure.

    Without a ``palette`` (K, 3) the PNG is gray; 255 (no class) is black.
    """
    write_values(path, labels, _form_of(palette))


def _form_of(palette: NDArray[np.uint8] | None) -> MaskForm:
    return MaskForm("L", 8) if palette is None else MaskForm("P", 8, palette.tobytes().ljust(256 * 3, b"\0"))


def is_whole_mask(path: Path) -> bool:
    """Whether a mask file is complete, which it may not be after a power cut."""
    try:
        return path.read_bytes().endswith(_PNG_END)
    except OSError:
        return False


def read_mask(path: str | Path) -> Labels:
    """Read (H, W) class indices from a palette PNG or an 8-bit gray PNG; DataError for anything else."""
    read_index_header(Path(path))
    return read_values(Path(path))[0].astype(np.uint8, copy=False)


def read_index_header(path: Path) -> PngHeader:
    """Read the header of a mask of class indices; errors are those of `read_mask`."""
    header = read_header(path)
    # Only these hold plain indices: Pillow stretches gray of fewer bits to 0..255.
    if not (header.colour_type == _PALETTE or header.kind == "8-bit gray"):
        raise DataError(f"mask {str(path)!r} is a PNG of {header.kind}; masks are palette or 8-bit gray PNGs")
    return header


def read_label_video(path: Path) -> Iterator[Labels]:
    """Yield (H, W) labels of each frame of an .mkv with 8-bit gray FFV1, as exports write it.

    Raises DataError for a file that cannot be read or has colours.
    """
    try:
        with path.open("rb") as file, open_container(file, "matroska") as container:
            if not container.streams.video:
                raise DataError(f"{path}: holds no video")
            stream = container.streams.video[0]
            if stream.codec_context.name != "ffv1" or stream.pix_fmt != "gray":
                kind = f"{stream.codec_context.name} of {stream.pix_fmt}"
                raise DataError(f"{path}: is {kind}; label maps are FFV1 of 8-bit gray")
            for frame in container.decode(stream):
                yield np.ascontiguousarray(frame.to_ndarray())
    except (OSError, av.FFmpegError) as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
