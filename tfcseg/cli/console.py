"""Print messages for people, and progress bars, on stderr. stdout is for results.

Text from outside (names of files and classes, other programs' messages) goes through `plain` or `one_line`, so that it
is shown literally, without markup or control characters, on one line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

logger = logging.getLogger(__name__)
stderr = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def one_line(text: str) -> str:
    """``text`` on one line: line ends and tabs become blanks, invisible characters escapes such as ``\x1b``."""
    line = " ".join(part.strip() for part in text.replace("\t", " ").splitlines())
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in line)


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


OnProgress = Callable[..., None]
"""Moves the bar of a task: ``(task, done, total, note="")``; ``note`` is shown behind the counts."""


@contextmanager
def progress(*, shown: bool, unit: str = "", has_time: bool = True) -> Iterator[OnProgress]:
    """Show a bar with one line per task; yields the callback that moves it."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        *([TimeRemainingColumn()] if has_time else []),
    )
    tasks = {}
    with Progress(*columns, console=stderr, transient=True, disable=not (shown and is_terminal())) as bar:

        def on_progress(task: str, done: int, total: int | None, note: str = unit) -> None:
            if task not in tasks:
                tasks[task] = bar.add_task(one_line(task), total=total, note=note)
            bar.update(tasks[task], completed=done, total=total, note=note)

        yield on_progress
