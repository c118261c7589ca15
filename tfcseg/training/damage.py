"""Find damaged files before training starts, by their first and last bytes: data sets have 10⁵ files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tfcseg.errors import DataError, InputError
from tfcseg.media.images import read_image
from tfcseg.spelling import first_of

_T = TypeVar("_T")

_THREADS = 8  # more than cores: they wait for the disk
_SHOWN = 20
_WHOLE = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}
"""First and last bytes of complete JPEG and PNG files."""


def image_defect(path: Path) -> str | None:
    """Describe what is wrong with an image file; None if nothing is. Only unusual files are decoded."""
    try:
        with path.open("rb") as file:
            first = file.read(4)
            size = file.seek(0, 2)
            file.seek(max(0, size - 8))
            last = file.read()
        if size == 0:
            return "empty"
        if any(first.startswith(begin) and last.endswith(end) for begin, end in _WHOLE.items()):
            return None
        read_image(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def examine(check: Callable[[_T], str | None], items: Iterable[_T]) -> list[str | None]:
    """Run ``check`` on all items in threads; results in the order of ``items``."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(check, items))


def refuse(defects: list[str], where: str) -> None:
    """Raise DataError with the first defects, if there are any."""
    if defects:
        raise DataError(f"{where}: {first_of(defects, _SHOWN, '; ')}; repair them or train with --skip-bad")
