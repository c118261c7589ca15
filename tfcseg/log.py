"""What the program decides and why, for whoever asks: standard logging, with loggers below ``tfcseg``.

Modules say their decisions with ``logging.getLogger(__name__).info("…", extra={…})``. Nothing is shown unless somebody
listens: ``-v`` prints the messages, ``--log-file`` keeps them, warnings and errors with all fields as JSON lines.
"""

from __future__ import annotations

import json
import logging
import math
import numbers
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tfcseg.errors import OutputError, UsageError

ROOT = logging.getLogger("tfcseg")
PYTHON_WARNINGS = logging.getLogger("py.warnings")
"""Where ``logging.captureWarnings`` sends the warnings of other libraries."""

_PLAIN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class DecisionPrinter(logging.Handler):
    """Gives the messages of ``tfcseg`` to ``print_line``, each once; warnings and errors are said anyway."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._print_line = print_line
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message, unless the same was decided before, as when a video is opened again."""
        message = record.getMessage()
        if record.levelno < logging.WARNING and message not in self._said:
            self._said.add(message)
            self._print_line(message)


class JsonLines(logging.Handler):
    """Appends records to a file: one JSON object a line with time (UTC), level, logger, message and fields.

    UsageError if something else is in the file, OutputError if it cannot be opened. Later failures, as when the disk is
    full, end the log and not the program; ``on_failure`` hears of the first one.
    """

    def __init__(self, path: Path, on_failure: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._path, self._on_failure = path, on_failure
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise OutputError(
                f"cannot write the log {str(path)!r}: {error.strerror}; choose another --log-file"
            ) from None
        if path.is_file() and self._first_byte() not in (b"", b"{"):
            self._file.close()
            raise UsageError(f"{str(path)!r} exists and is no log of JSON lines; choose another --log-file")

    def _first_byte(self) -> bytes:
        self._file.seek(0)
        return self._file.read(1)

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line in one piece: processes that share a file do not mix theirs."""
        if self._file.closed:
            return
        line = json.dumps(json_record(record), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            # A file name that is no valid UTF-8 reaches us with lone surrogates: as \udcxx they are valid JSON.
            self._file.write(line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._file.close()
            self._on_failure(f"the log {str(self._path)!r} ends here: {error.strerror}")

    def close(self) -> None:
        """Close the file; records after that are dropped."""
        self._file.close()
        super().close()


def json_record(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says, in JSON types; ``fields`` are the keys of its ``extra``."""
    content: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        "fields": {key: _plain(value) for key, value in vars(record).items() if key not in _PLAIN_FIELDS},
    }
    if record.exc_info:
        content["traceback"] = logging.Formatter().formatException(record.exc_info)
    return content


def listen(handler: logging.Handler) -> Callable[[], None]:
    """Let ``handler`` hear ``tfcseg`` and other libraries' warnings until the function that is returned is called."""
    level = ROOT.level
    ROOT.setLevel(logging.INFO)
    for logger in (ROOT, PYTHON_WARNINGS):
        logger.addHandler(handler)

    def stop() -> None:
        for logger in (ROOT, PYTHON_WARNINGS):
            logger.removeHandler(handler)
        ROOT.setLevel(level)
        handler.close()

    return stop


def _plain(value: object) -> object:
    """``value`` in JSON types; what has none there becomes text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):  # NumPy's numbers included, here as below
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
