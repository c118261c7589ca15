"""Print for people, on stderr: stdout is for results.

What comes from outside (names of files and classes, other programs' words) goes through `plain` or `one_line`: it is
shown as it is spelt, neither as markup nor as control characters, and never on more than one line.
"""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.text import Text

logger = logging.getLogger(__name__)
stderr = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def one_line(text: str) -> str:
    """``text`` on one line: line ends and tabs as blanks, invisible characters as ``\\x1b`` and the like."""
    line = " ".join(part.strip() for part in text.replace("\t", " ").splitlines())
    return line if line.isprintable() else "".join(map(_visible, line))


def plain(text: str) -> Text:
    """``text`` on one line for tables and bars, where brackets and colons would otherwise be markup."""
    return Text(one_line(text))


def print_error(message: str) -> None:
    """One line, ``error: …``; also in the log."""
    logger.error("%s", message)
    stderr.print(Text.assemble(("error:", "bold red"), " ", one_line(message)))


def print_warning(message: str) -> None:
    """One line, ``warning: …``; also in the log."""
    logger.warning("%s", message)
    stderr.print(Text.assemble(("warning:", "bold yellow"), " ", one_line(message)))


def print_line(message: str) -> None:
    """One line as it is."""
    stderr.print(plain(message))


def is_terminal() -> bool:
    """Whether a person is watching stderr."""
    return sys.stderr.isatty()


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
