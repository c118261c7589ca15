"""Calls the program as a shell would, but in this process: a new one spends seconds on importing torch.

And starts processes that tests interrupt.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from tfcseg.cli import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str

    @property
    def error(self):
        """The only line on stderr."""
        lines = self.stderr.strip().splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


@contextlib.contextmanager
def interruptible():
    """Let processes started inside hear SIGINT, also when the tests run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def call(*arguments) -> Done:
    """Exit code and output of ``tfcseg arguments…``."""
    arguments_before, handler_before = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = ["tfcseg", *map(str, arguments)]
    try:
        with _caught("stdout", 1) as stdout, _caught("stderr", 2) as stderr:
            main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code or 0
    finally:
        sys.argv = arguments_before
        signal.signal(signal.SIGTERM, handler_before)
    return Done(code, "".join(stdout), "".join(stderr))


@contextlib.contextmanager
def _caught(name, number) -> Iterator[list[str]]:
    """All that reaches a standard stream, also from libraries in C and from programs that are started."""
    found: list[str] = []
    before, kept = getattr(sys, name), os.dup(number)
    before.flush()
    errors = "backslashreplace" if name == "stderr" else "strict"  # as Python opens them
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors=errors, newline="") as file:
        file.reconfigure(line_buffering=True)  # what others write comes in between
        os.dup2(file.fileno(), number)
        setattr(sys, name, file)
        try:
            yield found
        finally:
            setattr(sys, name, before)
            os.dup2(kept, number)
            os.close(kept)
            file.seek(0)
            found.append(file.read())
