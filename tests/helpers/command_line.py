"""Calls the program as a shell would, but in this process: a new one spends seconds on importing torch.

And starts processes that tests interrupt.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
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
    stdout, stderr = io.StringIO(), io.StringIO()
    arguments_before, handler_before = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = ["tfcseg", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code or 0
    finally:
        sys.argv = arguments_before
        signal.signal(signal.SIGTERM, handler_before)
    return Done(code, stdout.getvalue(), stderr.getvalue())
