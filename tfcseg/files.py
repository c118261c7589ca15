"""Claim names in an output folder, replace files in one step, flush to disk, read JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from tfcseg.errors import DataError, OutputError, TfcsegError, UsageError
from tfcseg.spelling import first_of

_SUFFIXES_OF_FILES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".gif"),
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"),
    *(".json", ".csv", ".html", ".txt", ".zip", ".safetensors"),
)


@contextmanager
def claimed_files(
    folder: Path, names: Iterable[str], *, inputs: Iterable[str | Path] = (), overwrite: bool = False
) -> Iterator[Callable[[], None]]:
    """Check that ``folder`` can receive the files ``names`` (paths relative to it) before any work begins.

    Yields a function that removes existing ones (allowed only with ``overwrite``) and subfolders that become empty, to
    be called when all other checks have passed. Raises UsageError if ``folder`` or an existing file is one of
    ``inputs`` or inside one, and OutputError if any file exists without ``overwrite``, if one is a folder, or if
    ``folder`` is not writable. If the block fails before writing anything, a folder created here is removed.
    """
    existing = [path for name in names if os.path.lexists(path := folder / name)]
    refuse_inputs([folder, *existing], inputs)
    for path in existing:
        if path.is_dir() and not path.is_symlink():
            raise OutputError(f"{str(path)!r} is a folder and cannot be replaced; choose another name")
    if not overwrite:
        refuse_results(existing)

    def clear() -> None:
        for path in existing:
            with output_errors(f"cannot remove {str(path)!r}"):
                path.unlink(missing_ok=True)
            if path.parent != folder:
                with suppress(OSError):  # not empty
                    path.parent.rmdir()

    with removed_if_unused(folder):
        make_folder(folder)
        yield clear


@contextmanager
def removed_if_unused(folder: Path) -> Iterator[None]:
    """Remove a folder that the block has made and left empty."""
    is_new = not os.path.lexists(folder)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # something was written, or the folder was not made
                folder.rmdir()


def refuse_results(existing: Sequence[Path], otherwise: str = "choose another output") -> None:
    """Raise OutputError if there are ``existing`` results; ``otherwise`` is what helps besides --overwrite."""
    if existing:
        names = first_of([repr(str(path)) for path in existing], 1)
        exist = "exists" if len(existing) == 1 else "exist"
        raise OutputError(f"{names} already {exist}; use --overwrite or {otherwise}")


def refuse_inputs(places: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Raise UsageError if an input, or a file in an input folder, is at one of ``places``, which are written to."""
    written = {found: place for place in places if (found := identity(place))}
    for source in map(Path, inputs):
        files: list[Path] = []
        with suppress(OSError):  # a file, or a folder whose reader reports the error
            files = [path for path in source.iterdir() if not path.is_dir()]
        for path in (source, *files):
            if (found := identity(path)) in written:
                raise UsageError(
                    f"output {str(written[found])!r} is the input {str(path)!r} itself; choose another output folder"
                )


@contextmanager
def errors_as(kind: type[TfcsegError], what: str, advice: str = "") -> Iterator[None]:
    """Raise an error of this ``kind``, ``what: reason advice``, for an OSError inside."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror or error}{advice}") from error


output_errors = partial(errors_as, OutputError)


def make_folder(folder: Path) -> None:
    """Create ``folder`` with its parents and check that it is writable; raise OutputError if it is not."""
    refuse_file_name(folder)
    with output_errors(f"cannot write to folder {str(folder)!r}", "; choose another one"):
        for place in (folder, *folder.parents):
            if place.is_symlink() and not place.exists():
                raise OSError(f"{str(place)!r} is a symbolic link to nothing")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which replaces it when the block ends and is removed if the block fails.
    An OSError inside becomes an OutputError that names ``path``."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with output_errors(f"cannot write {str(path)!r}"):
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):  # already moved, or never created
            temporary.unlink()


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from anybody; ValueError, of one line, also for repeated keys, NaN and deep nesting."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"{repeated[0][:100]!r} is given twice")
    return dict(pairs)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def read_json(path: Path) -> Any:
    """Read a JSON file; raise DataError for a missing or invalid one."""
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({' '.join(str(error).split())})") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise DataError for anything else."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a JSON {type(content).__name__}, not an object of names")
    return content


def refuse_file_name(folder: Path) -> None:
    """Raise UsageError if ``folder`` is named like a file: someone who asks for ``out.mp4`` does not want a folder."""
    for place in (folder, *folder.parents):
        if place.suffix.lower() in _SUFFIXES_OF_FILES and not place.is_dir():
            raise UsageError(
                f"output {str(place)!r} is named like a file, but the results are written to a folder; "
                f"give {str(place.with_suffix(''))!r}"
            )


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are written to disk. Raises OSError."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode, which are the same for all names of a file or folder; None if it does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def write_json(path: Path, result: object) -> None:
    """Write ``result`` as UTF-8 JSON; ``path`` appears complete or not at all. Raises OutputError."""
    text = json.dumps(to_json(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replace_atomically(path) as temporary:
        # File names that are not valid UTF-8 arrive with lone surrogates; written as \udcxx they are valid JSON.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def to_json(value: object, decimals: int = 6, other: Callable[[object], object] | None = None) -> Any:
    """``value`` in plain JSON types: dataclasses as objects, numbers rounded, None for NaN and infinities. ``other``
    converts anything else; without it, TypeError."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):  # NumPy's integers included, here as below
        return int(value)
    if isinstance(value, numbers.Real):
        return round(float(value), decimals) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
        return {name: to_json(getattr(value, name), decimals_of(name), other) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_json(item, other=other) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [to_json(item, other=other) for item in value]
    if other is not None:
        return other(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a report")


def decimals_of(name: str) -> int:
    """Decimals for the quantity ``name``: three for speeds, six for seconds and shares."""
    return 3 if name.endswith(("_ms", "fps")) else 6
