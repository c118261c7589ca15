"""Log decisions and their reasons through the standard ``logging``, with loggers below ``tfcseg``.

Modules call ``logging.getLogger(__name__).info("…", extra={…})``. Nothing is shown by default: ``-v`` prints the
messages, ``--log-file`` writes messages, warnings and errors with all fields as JSON lines.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfcseg.errors import UsageError
from tfcseg.files import output_errors, to_json

ROOT = logging.getLogger("tfcseg")

_START = b'{"time":'
_PLAIN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class DecisionPrinter(logging.Handler):
    """Passes each ``tfcseg`` message to ``print_line`` once. Warnings and errors are printed elsewhere."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._print_line = print_line
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message unless the same one was printed before, for example because a video is opened again."""
        message = record.getMessage()
        if record.levelno < logging.WARNING and message not in self._said:
            self._said.add(message)
            self._print_line(message)


class JsonLines(logging.Handler):
    """Appends records to a file: one JSON object per line with UTC time, level, logger, message and fields.

    Raises UsageError if the file holds something else and OutputError if it cannot be opened. A later failure, such as
    a full disk, ends the log but not the program; ``on_failure`` is called once.
    """

    def __init__(self, path: Path, on_failure: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._path, self._on_failure = path, on_failure
        with output_errors(f"cannot write the log {str(path)!r}", "; choose another --log-file"):
            self._file = path.open("a+b", buffering=0)
        if path.is_file():
            self._file.seek(0)
            if self._file.read(len(_START)) not in (b"", _START):
                self._file.close()
                raise UsageError(f"{str(path)!r} exists and is not a log of JSON lines; choose another --log-file")

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line in a single write, so that lines of processes that share a file do not mix."""
        if self._file.closed:
            return
        line = json.dumps(json_record(record), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            # File names that are not valid UTF-8 arrive with lone surrogates; written as \udcxx they are valid JSON.
            self._file.write(line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._file.close()
            self._on_failure(f"the log {str(self._path)!r} ends here: {error.strerror}")

    def close(self) -> None:
        """Close the file. Later records are dropped."""
        self._file.close()
        super().close()


def json_record(record: logging.LogRecord) -> dict[str, Any]:
    """Convert a record to JSON types; ``fields`` holds the keys of its ``extra``."""
    content: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        # Libraries such as Ray add fields of their own to every record; their names begin with "_".
        "fields": {
            key: to_json(value, other=str)
            for key, value in vars(record).items()
            if key not in _PLAIN_FIELDS and not key.startswith("_")
        },
    }
    if record.exc_info:
        content["traceback"] = logging.Formatter().formatException(record.exc_info)
    return content


def listen(handler: logging.Handler) -> Callable[[], None]:
    """Attach ``handler`` to ``tfcseg`` and to other libraries' warnings; returns a function that detaches it."""
    level, loggers = ROOT.level, (ROOT, logging.getLogger("py.warnings"))  # the second is that of captureWarnings
    ROOT.setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)

    def stop() -> None:
        for logger in loggers:
            logger.removeHandler(handler)
        ROOT.setLevel(level)
        handler.close()

    return stop
