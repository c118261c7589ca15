"""A progress bar on stderr for work in several stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tfcseg.cli.console import is_terminal, one_line, stderr


@contextmanager
def stage_progress(unit: str, *, shown: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """Bar with one line per stage, if a person is watching; the callback (stage, done, total) that moves it."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=stderr, transient=True, disable=not (shown and is_terminal())) as bar:

        def on_progress(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(one_line(stage), total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield on_progress
