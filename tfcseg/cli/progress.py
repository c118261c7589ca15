"""Progress bars on stderr, if it is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfcseg.cli.console import is_terminal, one_line, stderr

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
