"""The output folder: what may be written there, masks as PNG files, and replacing a file in one step.

Letters: H image height, W image width, K classes.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

from tfcseg.errors import DataError, OutputError, UsageError
from tfcseg.result_files import identity, make_folder

Labels: TypeAlias = NDArray[np.uint8]

RESULT_NAMES = ("overlay.mp4", "side_by_side.mp4", "report.json", "report.html", "frames.csv")
_MASK_NAME = re.compile(r"[0-9]{8,}\.png")
_MASK_LEFTOVER = re.compile(r"\.[0-9]{8,}\.png\.part")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPES = {0: "gray", 2: "RGB colour", 3: "palette", 4: "gray with alpha", 6: "RGB colour with alpha"}
_MASK_MARK = (
    b"tEXtSoftware\x00tfcseg"  # tells our masks from files of the same name; among the first chunks of the file
)
_WRITERS = 2
_MAX_PENDING = 8  # label maps that wait for the disk: bounds memory however long the video is


@dataclass(frozen=True, slots=True)
class OutputDir:
    """Where each result of a run lives below ``path``; ``is_new`` if the run made the folder."""

    path: Path
    is_new: bool = False

    @property
    def overlay(self) -> Path:
        """Video with tinted classes."""
        return self.path / "overlay.mp4"

    @property
    def side_by_side(self) -> Path:
        """Video of source and result."""
        return self.path / "side_by_side.mp4"

    @property
    def report_json(self) -> Path:
        """Facts of the run for programs; written last, so that its presence means the run finished."""
        return self.path / "report.json"

    @property
    def report_html(self) -> Path:
        """Facts of the run for people."""
        return self.path / "report.html"

    @property
    def frames_csv(self) -> Path:
        """One row per frame."""
        return self.path / "frames.csv"

    @property
    def masks(self) -> Path:
        """Folder of one label PNG per frame."""
        return self.path / "masks"

    def results(self) -> list[Path]:
        """Existing files with names of results; OutputError if the folder cannot be listed."""
        files = [self.path / name for name in RESULT_NAMES]
        return [path for path in files if os.path.lexists(path)] + self._matching_masks(_MASK_NAME)

    def remove_results(self) -> None:
        """Delete the results of an earlier run, and nothing else.

        Raises OutputError, before anything is deleted, if files of others carry the names of results.
        """
        results = self.results()
        for path in results:
            if path.is_dir() or (path.parent == self.masks and not _is_own_mask(path)):
                raise OutputError(f"{str(path)!r} was not written by tfcseg and is kept; choose another output folder")
        leftovers = [path for name in RESULT_NAMES if (path := _temporary(self.path / name)).exists()]
        for path in [*results, *leftovers, *self._matching_masks(_MASK_LEFTOVER)]:
            try:
                path.unlink()
            except OSError as error:
                raise OutputError(f"cannot remove {str(path)!r}: {_reason(error)}") from error
        with suppress(OSError):  # it holds other files, or was never made
            self.masks.rmdir()

    def discard(self) -> None:
        """Leave nothing behind of a run that failed: its results, and the folder if the run made it."""
        self.remove_results()
        if self.is_new:
            with suppress(OSError):  # somebody else has put files there
                self.path.rmdir()

    def _matching_masks(self, pattern: re.Pattern[str]) -> list[Path]:
        try:
            return sorted(path for path in self.masks.iterdir() if pattern.fullmatch(path.name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise OutputError(f"cannot list {str(self.masks)!r}: {_reason(error)}") from error


def prepare_output(directory: str | Path, *, inputs: Iterable[str | Path], overwrite: bool = False) -> OutputDir:
    """Make ``directory`` ready to receive results, or refuse in one line before any work begins.

    ``inputs`` are the sources of the run ("-" for stdin is ignored). Raises UsageError if a result would replace one of
    them, and OutputError if there are results already and ``overwrite`` is off, or if the folder cannot be written.
    With ``overwrite``, earlier results are removed; files that the tool did not write stay.
    """
    output = OutputDir(Path(directory), is_new=not os.path.lexists(directory))
    existing = output.results()
    _refuse_inputs(output, existing, [Path(path) for path in inputs if str(path) != "-"])
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        first = existing[0].relative_to(output.path)
        raise OutputError(
            f"{str(output.path)!r} already holds results ({first}{more}); use --overwrite or choose another folder"
        )
    output.remove_results()
    make_folder(output.path)
    return output


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends, or vanishes if the block fails.

    An OSError inside becomes an OutputError that names ``path``.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {_reason(error)}") from error
    finally:
        with suppress(OSError):  # it has been moved, or never existed
            temporary.unlink()


class MaskWriter:
    """Writes label maps as ``directory/00000000.png``, ...: 8-bit palette PNGs whose values are class indices.

    Encoding and disk run in a small thread pool behind a bounded queue. A failure surfaces once, as OutputError, in a
    later ``write`` or at the latest in ``close``. As a context manager it closes itself.
    """

    def __init__(self, directory: Path, palette: NDArray[np.uint8]) -> None:
        make_folder(directory)
        self._directory = directory
        self._palette = palette.tobytes().ljust(256 * 3, b"\0")  # full, so that 255 (no class) has a colour: black
        self._pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="masks")
        self._pending: deque[Future[None]] = deque()

    def write(self, index: int, labels: Labels) -> None:
        """Queue the (H, W) ``labels`` of frame ``index``; the array may be changed afterwards."""
        self._collect(_MAX_PENDING - 1)
        path = self._directory / f"{index:08d}.png"
        self._pending.append(self._pool.submit(_write_mask, path, labels.copy(), self._palette))

    def close(self) -> None:
        """Wait until everything is written; raise a failure unless ``write`` has raised it."""
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
            with suppress(OutputError):  # the error that is already on its way is the cause
                self.close()

    def _collect(self, max_pending: int) -> None:
        while self._pending and (len(self._pending) > max_pending or self._pending[0].done()):
            try:
                self._pending.popleft().result()
            except OutputError:
                while self._pending:  # the rest would fail alike
                    self._pending.popleft().cancel()
                raise


def read_mask(path: str | Path) -> Labels:
    """(H, W) class indices of a palette PNG or an 8-bit gray PNG.

    Raises DataError for anything else, such as a colour picture, whose colours are no indices.
    """
    name = repr(str(path))
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read mask {name}: {_reason(error)}") from error
    if data[:8] != _PNG_SIGNATURE or data[12:16] != b"IHDR" or len(data) < 26:
        raise DataError(f"mask {name} is not a PNG file; masks are palette or 8-bit gray PNGs")
    depth, colour_type = data[24], data[25]
    # Only these hold indices as they are: Pillow stretches gray of fewer bits to 0..255.
    if not (colour_type == 3 or (colour_type == 0 and depth == 8)):
        kind = _PNG_COLOUR_TYPES.get(colour_type, "unknown")
        raise DataError(f"mask {name} is a PNG of {depth}-bit {kind}; masks are palette or 8-bit gray PNGs")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            return np.array(picture, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise DataError(f"mask {name} is damaged: {error}") from error


def _write_mask(path: Path, labels: Labels, palette: bytes) -> None:
    picture = PIL.Image.fromarray(labels)
    picture.putpalette(palette)
    note = PngInfo()
    note.add_text("Software", "tfcseg")
    # Label maps are runs: at 720p the run-length strategy gives 16 KB in 2 ms; plain level 1 gives 23 KB in the same
    # time, level 6 gives 16 KB in 6 ms, stored 923 KB. bits=8 keeps Pillow from packing small palettes.
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        picture.save(file, "PNG", bits=8, compress_level=1, compress_type=zlib.Z_RLE, pnginfo=note)


def _is_own_mask(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _MASK_MARK in file.read(128)
    except OSError:
        return False


def _refuse_inputs(output: OutputDir, results: Iterable[Path], inputs: Iterable[Path]) -> None:
    """UsageError if an input, or a file in an input folder, is one of the places that a run writes to."""
    places = {found: path for path in (output.path, output.masks, *results) if (found := identity(path))}
    for source in inputs:
        for path in (source, *_files_of(source)):
            found = identity(path)
            if found in places:
                raise UsageError(
                    f"output {str(places[found])!r} is the input {str(path)!r} itself; choose another output folder"
                )


def _files_of(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if not entry.is_dir()]
    except OSError:  # a video file, or a folder that reading the input will complain about
        return []


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
