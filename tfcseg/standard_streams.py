"""Cope with standard streams that are closed or end on a full disk, without harm to results."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

from tfcseg.errors import OutputError


def secure_streams() -> None:
    """Open what is closed as an empty file, before a result gets its number; let failures to write be told once.

    What stderr cannot take is lost. What stdout cannot take is an OutputError, the first time.
    """
    for number, mode in enumerate(("r", "w", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
            setattr(sys, ("stdin", "stdout", "stderr")[number], os.fdopen(number, mode, closefd=False))
    sys.stdout, sys.stderr = _secured(sys.stdout, tells=True), _secured(sys.stderr, tells=False)


def _secured(stream: TextIO, *, tells: bool) -> TextIO:
    stream.flush()
    raw = io.BufferedWriter(_Output(stream.fileno(), tells=tells))
    return io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=stream.isatty() or not tells)


class _Output(io.FileIO):
    """Writes to a file that is open already, and drops what comes after a failure, which is told if ``tells``."""

    def __init__(self, number: int, *, tells: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._tells = tells

    def write(self, data: Any, /) -> int:
        """Write what the file takes; BrokenPipeError if nobody reads it any more, else OutputError."""
        try:
            return super().write(data) or 0  # None: it would have to be waited for
        except OSError as error:
            if not self._tells:
                return len(data)
            self._tells = False
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(f"cannot write to stdout: {error.strerror}") from None
