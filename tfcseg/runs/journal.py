"""A JSON lines file that only grows; complete lines survive a crash."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tfcseg.errors import OutputError


class Journal:
    """Lines at ``path``; each is on disk when ``append`` returns. OutputError if it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Any]:
        """Complete lines up to the first incomplete one, which is left if the program or the machine stopped in it.

        Empty if there is no file.
        """
        return [json.loads(line) for line in self._whole_lines()]

    def append(self, entry: object) -> None:
        """Add one line; numbers come back exactly as they are."""
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        try:
            with self._path.open("ab", buffering=0) as file:
                while line:  # a disk that is nearly full takes a part, and says why when it is given the rest
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def keep(self, count: int) -> None:
        """Drop all lines but the first ``count``, and whatever was torn."""
        size = sum(len(line) for line in self._whole_lines()[:count])
        try:
            os.truncate(self._path, size)
        except OSError as error:
            raise self._failure(error) from error

    def _whole_lines(self) -> list[bytes]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failure(error) from error
        lines = []
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n") or not _is_json(line):
                break
            lines.append(line)
        return lines

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"cannot keep the state of the run in {str(self._path)!r}: {error.strerror or error}")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
