"""Tables for spreadsheets and data frames: frames.csv, one row per frame."""

from __future__ import annotations

import csv
import dataclasses
import math
import numbers
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfcseg.files import decimals_of, output_errors


@dataclass(frozen=True, slots=True)
class FrameRow:
    """Facts of one frame; the fields are the columns. None, NaN and infinities become empty cells."""

    frame: int  # 0-based
    time_s: float
    is_keyframe: bool  # 1 or 0 in the file
    similarity: float | None  # mean over the grid
    updated_fraction: float | None
    label_change: float | None
    flow_consistency: float | None
    model_ms: float | None  # none: nothing was computed, the rest of the row is that of the frame before
    is_held: bool = False  # it shows the picture of the frame before
    confidence: float | None = None  # mean probability that a label is right
    unsure: float | None = None  # share of the labels whose probability is below a half, or what --unsure says
    label_change_before: float | None = None  # of the masks that were given; a column of `tfcseg steady` only
    flow_consistency_before: float | None = None  # likewise
    source: str = ""  # its file; there is such a column for folders of images only


COLUMNS = tuple(item.name for item in dataclasses.fields(FrameRow))
_BEFORE_COLUMNS, _SOURCE_COLUMN = ("label_change_before", "flow_consistency_before"), "source"


def columns_for(*, has_sources: bool = False, has_before: bool = False) -> tuple[str, ...]:
    """The columns of a table, with those that only some runs have."""
    left_out = {*(() if has_before else _BEFORE_COLUMNS), *(() if has_sources else (_SOURCE_COLUMN,))}
    return tuple(name for name in COLUMNS if name not in left_out)


class FrameTable:
    """Writes frames.csv row by row: what is done is on disk even if the run is cut short. Raises OutputError.

    ``keep_bytes`` of a table that an earlier run has begun stay, and rows are added to them. ``columns`` are those to
    write (`columns_for`).
    """

    def __init__(self, path: Path, keep_bytes: int = 0, columns: Sequence[str] = columns_for()) -> None:
        self._path, self._columns = path, columns
        with self._errors():
            if keep_bytes:
                os.truncate(path, keep_bytes)
            self._file = path.open("a" if keep_bytes else "w", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        if not keep_bytes:
            self._write_row(self._columns)

    def write(self, row: FrameRow) -> None:
        """Append ``row`` and hand it to the operating system."""
        self._write_row([_cell(name, getattr(row, name)) for name in self._columns])

    @property
    def size_bytes(self) -> int:
        """Of all rows written so far."""
        return os.fstat(self._file.fileno()).st_size

    def sync(self) -> None:
        """Wait until all rows written so far would survive a power cut; may be called from any thread."""
        with self._errors():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; further calls do nothing."""
        with self._errors():
            self._file.close()

    def _write_row(self, cells: Sequence[str]) -> None:
        with self._errors():
            try:
                self._writer.writerow(cells)
                self._file.flush()
            except OSError:
                with suppress(OSError):  # closing tries to write the same row again
                    self._file.close()
                raise

    def _errors(self) -> AbstractContextManager[None]:
        return output_errors(f"cannot write {str(self._path)!r}")


def _cell(name: str, value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return ""
    if isinstance(value, numbers.Integral | np.bool_):
        return str(int(value))
    return f"{float(value):.{decimals_of(name)}f}"
