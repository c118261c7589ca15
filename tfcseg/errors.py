"""Every error the tool raises on purpose: one family, so that the CLI needs one table.

A message is one line: what went wrong, where, and what to do about it. It never ends in a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfcseg.report import Report


class TfcsegError(Exception):
    """Base of all expected failures; ``exit_code`` is what the CLI returns."""

    exit_code = 1


class UsageError(TfcsegError):
    """The request itself makes no sense (option values, an output that is the input)."""

    exit_code = 2


class InputError(TfcsegError):
    """A video, folder of frames or stream cannot be read."""


class LostConnection(InputError):  # an end, which users may expect
    """A live source broke off. What had come is segmented, and all results of a run are complete."""

    report: Report | None = None
    """Of the run, if it was one."""


class OutputError(TfcsegError):
    """A result cannot be written, or would overwrite something."""


class WeightsError(TfcsegError):
    """A weights file is missing, foreign, damaged or does not fit its own metadata."""


class DataError(TfcsegError):
    """A data set folder or a prediction folder is not what its layout promises."""


class Interrupted(TfcsegError):
    """Somebody stopped the program (Ctrl-C, SIGTERM); the message says what is kept."""

    exit_code = 130


class FinishedError(TfcsegError):
    """A run that was to be continued is complete: there is nothing left to do, and nothing wrong."""

    exit_code = 0


class BatchError(TfcsegError):
    """Some of several inputs failed, after all of them were tried."""

    def __init__(self, failures: Mapping[str, TfcsegError], reports: Mapping[str, Report]) -> None:
        told = "; ".join(f"{source}: {str(error).removeprefix(f'{source}: ')}" for source, error in failures.items())
        super().__init__(f"{len(failures)} of {len(failures) + len(reports)} inputs failed: {told}")
        self.failures = failures
        """What went wrong, by input."""
        self.reports = reports
        """Reports of the others, by input."""


_FLAG = re.compile(r"(tfcseg [a-z-]+ )?--([a-z]+(?:-[a-z]+)*)( cpu\b)?")
_SWITCHES = {"overwrite", "resume", "allow_network"}


@contextmanager
def in_python_words() -> Iterator[None]:
    """Let errors inside name Python's arguments where they advise options of a command."""
    try:
        yield
    except TfcsegError as error:
        error.args = (_FLAG.sub(_as_argument, str(error)), *error.args[1:])
        raise


def _as_argument(match: re.Match[str]) -> str:
    """``--overwrite`` as ``overwrite=True``; options in a whole command, such as ``tfcseg doctor --json``, stay."""
    command, flag, value = match.groups()
    if command:
        return match[0]
    name = flag.replace("-", "_")
    return f'{name}="{value.strip()}"' if value else f"{name}=True" if name in _SWITCHES else name
