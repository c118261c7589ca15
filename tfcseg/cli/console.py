"""Print messages for people on stderr. stdout is for results.

Text from outside (names of files and classes, other programs' messages) goes through `plain` or `one_line`, so that it
is shown literally, without markup or control characters, on one line.
"""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.text import Text

logger = logging.getLogger(__name__)
stderr = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def one_line(text: str) -> str:
    """``text`` on one line: line ends and tabs become blanks, invisible characters escapes such as ``\x1b``."""
    line = " ".join(part.strip() for part in text.replace("\t", " ").splitlines())
    return line if line.isprintable() else "".join(map(_visible, line))


def plain(text: str) -> Text:
    """``text`` on one line for tables and bars, where brackets and colons would otherwise be markup."""
    return Text(one_line(text))


def print_error(message: str) -> None:
    """Print ``error: …`` on one line, and log it."""
    logger.error("%s", message)
    stderr.print(Text.assemble(("error:", "bold red"), " ", one_line(message)))


def print_warning(message: str) -> None:
    """Print ``warning: …`` on one line, and log it."""
    logger.warning("%s", message)
    stderr.print(Text.assemble(("warning:", "bold yellow"), " ", one_line(message)))


def print_line(message: str) -> None:
    """Print one line unchanged."""
    stderr.print(plain(message))


def is_terminal() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr.isatty()


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
