"""Files: claim names in an output folder, replace in one step, wait for the disk, read JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tfcseg.errors import DataError, OutputError, UsageError

_SUFFIXES_OF_FILES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".gif"),
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"),
    *(".json", ".csv", ".html", ".txt", ".zip", ".safetensors"),
)


@contextmanager
def claimed_files(
    folder: Path, names: Iterable[str], *, inputs: Iterable[str | Path] = (), overwrite: bool = False
) -> Iterator[Callable[[], None]]:
    """Make ``folder`` ready to receive the files ``names`` (paths relative to it), or refuse before any work begins.

    Yields what removes those that exist, which only ``overwrite`` lets be, and subfolders that this leaves empty. It is
    to be called when nothing is left that could be wrong with what was asked for; files that are written in one piece
    and replaced all need no call. UsageError if ``folder``, or a file that exists, is one of ``inputs`` or lies in one
    that is a folder. OutputError if any of the files exists and ``overwrite`` is off, if one of them is a folder, and
    if ``folder`` cannot be written. If the block fails and nothing was written, a folder that was made here goes again.
    """
    existing = [path for name in names if os.path.lexists(path := folder / name)]
    _refuse_inputs([folder, *existing], inputs)
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise OutputError(
            f"{str(folder)!r} already holds results ({existing[0].relative_to(folder)}{more}); "
            "use --overwrite or choose another folder"
        )
    for path in existing:
        if path.is_dir() and not path.is_symlink():
            raise OutputError(f"{str(path)!r} is a folder and cannot be replaced; choose another name")
    is_new = not os.path.lexists(folder)
    make_folder(folder)

    def clear() -> None:
        for path in existing:
            _remove(folder, path)

    try:
        yield clear
    except BaseException:
        if is_new:
            with suppress(OSError):  # something was written after all
                folder.rmdir()
        raise


def _refuse_inputs(places: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    sources = {found: path for path in inputs if (found := identity(Path(path)))}
    for place in places:
        for path in (place, place.parent) if place.is_file() else (place,):
            found = identity(path)
            if found in sources:
                raise UsageError(
                    f"output {str(place)!r} is the input {str(sources[found])!r} or in it; choose another folder"
                )


def make_folder(folder: Path) -> None:
    """Create ``folder`` with its parents and prove that files can be written there; OutputError if not."""
    refuse_file_name(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to folder {str(folder)!r}: {error.strerror or error}; choose another one"
        ) from error


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends, or vanishes if the block fails.

    An OSError inside becomes an OutputError that names ``path``.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it has been moved, or never existed
            temporary.unlink()


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object whose keys are all different; DataError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_keys)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a JSON {type(content).__name__}, not an object of names")
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"{repeated[0]!r} is given twice")
    return dict(pairs)


def refuse_file_name(folder: Path) -> None:
    """UsageError if ``folder`` has the name of a file: who asks for ``out.mp4`` does not want a folder of that name."""
    for place in (folder, *folder.parents):
        if place.suffix.lower() in _SUFFIXES_OF_FILES and not place.is_dir():
            raise UsageError(
                f"output {str(place)!r} is named like a file, but several results are written, into a folder; "
                f"give {str(place.with_suffix(''))!r}"
            )


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk and not only on their way there. Raises OSError."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, the same for every name of a file or folder; None if there is nothing to be reached."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _remove(folder: Path, path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {str(path)!r}: {error.strerror or error}") from error
    if path.parent != folder:
        with suppress(OSError):  # it holds other files
            path.parent.rmdir()
