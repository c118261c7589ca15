"""All errors that the tool raises on purpose.

Each message is one line: what went wrong, where, and what to do. None ends in a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfcseg.report.schema import Report


class TfcsegError(Exception):
    """Base class of expected failures. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(TfcsegError):
    """The request makes no sense, such as an option value or an output that is the input."""

    exit_code = 2


class InputError(TfcsegError):
    """A video, folder of frames or stream cannot be read."""


class LostConnection(InputError):  # an end, which users may expect
    """A live source ended. Everything that it had sent is segmented, and all results of a run are complete."""

    report: Report | None = None  # report of the run; None outside of one


class OutputError(TfcsegError):
    """A result cannot be written, or would overwrite something."""


class WeightsError(TfcsegError):
    """A weights file is missing, damaged, of an unknown kind, or contradicts its own metadata."""


class DataError(TfcsegError):
    """A data set or prediction folder does not have the expected layout."""


class Interrupted(TfcsegError):
    """The user stopped the program (Ctrl-C, SIGTERM). The message says what is kept."""

    exit_code = 130


class FinishedError(TfcsegError):
    """The run that should be resumed is already complete. Nothing is wrong."""

    exit_code = 0


_PASSWORD = re.compile(r"(?<=://)([^/?#@:\s]*):[^/?#@\s]*@")


def without_passwords(text: str) -> str:
    """Remove the passwords from all addresses in a text."""
    return _PASSWORD.sub(r"\1@", text)


class BatchError(TfcsegError):
    """Some of several inputs failed. All were tried."""

    def __init__(self, failures: Mapping[str, TfcsegError], reports: Mapping[str, Report]) -> None:
        named = [(without_passwords(source), str(error)) for source, error in failures.items()]
        reasons = "; ".join(f"{name}: {error.removeprefix(f'{name}: ')}" for name, error in named)
        super().__init__(f"{len(failures)} of {len(failures) + len(reports)} inputs failed: {reasons}")
        self.failures = failures  # the error of each failed input
        self.reports = reports  # the reports of the other inputs


_FLAG = re.compile(r"(tfcseg [a-z-]+ )?--([a-z]+(?:-[a-z]+)*)( cpu\b)?")
_SWITCHES = {"overwrite", "resume", "allow_network"}


@contextmanager
def in_python_words() -> Iterator[None]:
    """Let errors raised inside name Python's arguments instead of command-line options."""
    try:
        yield
    except TfcsegError as error:
        error.args = (_FLAG.sub(_as_argument, str(error)), *error.args[1:])
        raise


def _as_argument(match: re.Match[str]) -> str:
    """Rewrite ``--overwrite`` as ``overwrite=True``. Options within a full command (``tfcseg doctor --json``) stay."""
    command, flag, value = match.groups()
    if command:
        return match[0]
    name = flag.replace("-", "_")
    return f'{name}="{value.strip()}"' if value else f"{name}=True" if name in _SWITCHES else name
