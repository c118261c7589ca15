"""A JSON lines file that only grows; complete lines survive a crash."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from tfcseg.errors import OutputError


class Journal:
    """Lines at ``path``; each is on disk when ``append`` returns. Raises OutputError if that fails."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Any]:
        """Read all lines up to the first incomplete one, which a crash may leave. Empty if there is no file."""
        return [content for _, content in self._lines()]

    def append(self, entry: object) -> None:
        """Add one line. Numbers are restored exactly."""
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        try:
            with self._path.open("ab", buffering=0) as file:
                while line:  # a nearly full disk accepts a part; the next write reports why
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def keep(self, count: int) -> None:
        """Drop all lines but the first ``count``, and any incomplete line."""
        size = sum(length for length, _ in self._lines()[:count])
        try:
            os.truncate(self._path, size)
        except OSError as error:
            raise self._failure(error) from error

    def _lines(self) -> list[tuple[int, Any]]:
        """Length in bytes and content of each complete line."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failure(error) from error
        found = []
        with suppress(ValueError):  # not JSON: a crash left it
            for line in data.splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                found.append((len(line), json.loads(line)))
        return found

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"cannot keep the state of the run in {str(self._path)!r}: {error.strerror or error}")
