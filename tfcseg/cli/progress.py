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

        def on_progress(stage: str, done: int, total: int | None, note: str | None = None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(one_line(stage), total=total, note=unit)
            bar.update(tasks[stage], completed=done, total=total)
            if note is not None:
                bar.update(tasks[stage], note=note)

        yield on_progress
