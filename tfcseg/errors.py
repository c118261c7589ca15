"""Every error the tool raises on purpose: one family, so that the CLI needs one table.

A message is one line: what went wrong, where, and what to do about it. It never ends in a traceback.
"""

from __future__ import annotations


class TfcsegError(Exception):
    """Base of all expected failures; ``exit_code`` is what the CLI returns."""

    exit_code = 1


class UsageError(TfcsegError):
    """The request itself makes no sense (option values, an output that is the input)."""

    exit_code = 2


class InputError(TfcsegError):
    """A video, folder of frames or stream cannot be read."""


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
