"""Run the command line: ``python -m tfcseg`` is the same as ``tfcseg``.

Standard streams may be closed or fail; no results are lost then.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

from tfcseg.errors import OutputError


def main() -> None:
    """Entry point of the program. Importing the command line may already be interrupted, so it happens in here."""
    try:
        secure_streams()
        from tfcseg.cli import main as run_command

        run_command()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


def secure_streams() -> None:
    """Replace closed streams with null files, so that no result gets their number; report a failed write once. What
    stderr cannot take is dropped. What stdout cannot take raises OutputError, the first time."""
    for number, mode in enumerate(("r", "w", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this one
            setattr(sys, ("stdin", "stdout", "stderr")[number], os.fdopen(number, mode, closefd=False))
    sys.stdout, sys.stderr = _secured(sys.stdout, reports=True), _secured(sys.stderr, reports=False)


def _secured(stream: TextIO, *, reports: bool) -> TextIO:
    stream.flush()
    raw = io.BufferedWriter(_Output(stream.fileno(), reports=reports))
    return io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=stream.isatty() or not reports)


class _Output(io.FileIO):
    """Writes to an open file and drops everything after a failure, which it reports if ``reports``."""

    def __init__(self, number: int, *, reports: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._reports = reports

    def write(self, data: Any, /) -> int:
        """Write to the file; end the program if nobody reads it any more (``| head``), otherwise raise OutputError."""
        try:
            return super().write(data) or 0  # None would mean waiting
        except OSError as error:
            if not self._reports:
                return len(data)
            self._reports = False
            if isinstance(error, BrokenPipeError):
                sys.exit()
            raise OutputError(f"cannot write to stdout: {error.strerror}") from None


if __name__ == "__main__":
    main()
