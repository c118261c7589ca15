"""What the program prints: results on stdout; messages for people, and progress bars, on stderr.

Text from outside (names of files and classes, other programs' messages) goes through `plain` or `visible`, so that it
is shown literally, without markup or control characters, on one line.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tfcseg.files import claimed_files, to_json, write_json
from tfcseg.spelling import visible

if TYPE_CHECKING:
    from tfcseg.cli.options import Printing, ResultFile

logger = logging.getLogger(__name__)
stderr = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def plain(text: str) -> Text:
    """``text`` on one line for tables and bars, where brackets and colons would otherwise be markup."""
    return Text(visible(text))


def print_error(message: str) -> None:
    """Print ``error: …`` on one line, and log it."""
    logger.error("%s", message)
    stderr.print(Text.assemble(("error:", "bold red"), " ", visible(message)))


def print_warning(message: str) -> None:
    """Print ``warning: …`` on one line, and log it."""
    logger.warning("%s", message)
    stderr.print(Text.assemble(("warning:", "bold yellow"), " ", visible(message)))


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
                tasks[task] = bar.add_task(visible(task), total=total, note=note)
            bar.update(tasks[task], completed=done, total=total, note=note)

        yield on_progress


_WIDE = 1000  # columns where no terminal shows the text: files and programs need whole lines


def print_json(content: Any) -> None:
    """Print a result for programs; `to_json` says what it may be."""
    json.dump(to_json(content), sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_results(*parts: str | Text | Table | Markdown, on_stderr: bool = False) -> None:
    """Print lines and tables. Files do not get the blanks that fill the lines of a table."""
    is_shown = is_terminal() if on_stderr else sys.stdout.isatty()
    console = Console(stderr=on_stderr, highlight=False, emoji=False, width=None if is_shown else _WIDE)
    if on_stderr and is_shown:
        console = stderr
    for part in parts:
        text = plain(part) if isinstance(part, str) else part
        if isinstance(text, Table) and text.columns[-1].no_wrap:  # numbers are not cut where a terminal is narrow
            text.width = console.measure(text, options=console.options.update(width=_WIDE)).maximum
        with nullcontext() if console.is_terminal else console.capture() as printed:
            console.print(text, soft_wrap=not isinstance(part, (Table, Markdown)), crop=False)
        if printed is not None:
            console.file.write("".join(f"{line.rstrip()}\n" for line in printed.get().splitlines()))


class _FoldedTable(TableElement):
    """Where a terminal is narrow, names and headings are broken, and nothing is cut."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            for column in cast(Table, table).columns:
                column.overflow = "fold"
            yield table


class _Tables(Markdown):
    elements: ClassVar = {**Markdown.elements, "table_open": _FoldedTable}


def print_tables(text: str, *, on_stderr: bool = False) -> None:
    """Print Markdown (research/tables.py)."""
    print_results(_Tables("\n".join(map(visible, text.splitlines()))), on_stderr=on_stderr)


def new_table(headings: Iterable[str | Text]) -> Table:
    """Table whose first column is aligned to the left, the others, of numbers, to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="right" if column else "left", no_wrap=bool(column))
    return table


def print_facts(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values on stderr."""
    print_results(facts_table(rows), on_stderr=True)


def facts_table(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(plain(name), plain(value))
    return table


_Result = TypeVar("_Result")


def measured(
    measure: Callable[..., _Result],
    text: Callable[[dict[str, Any]], str],
    *,
    inputs: Sequence[Path],
    file: ResultFile,
    printing: Printing,
    unit: str = "",
    write: Callable[[Path, _Result], None] | None = None,
) -> _Result:
    """Measure while a bar moves, once the file can be written; write the result (as JSON) and print it.

    ``text`` makes Markdown for people of the result.
    """
    with ExitStack() as stack:
        output = file.output
        if output is not None:
            claim = claimed_files(output.parent, [output.name], inputs=inputs, overwrite=file.overwrite)
            stack.enter_context(claim)
        with progress(unit=unit, shown=not printing.quiet) as on_progress:
            found = measure(on_progress=on_progress)
        if output is not None:
            (write or write_json)(output, found)
    if printing.as_json:
        print_json(found)
    else:
        print_tables(text(to_json(found)))
    if output is not None and not printing.quiet:
        print_line(f"written: {output}")
    return found


def fail_if_incomplete(skipped: Mapping[str, int], *, is_incomplete: bool, skip_bad: bool) -> None:
    """Exit with code 1 if data was missing without --skip-bad. The scores have been printed before."""
    if is_incomplete and not skip_bad:
        missing = ", ".join(f"{kind} ({count})" for kind, count in skipped.items() if kind != "too short")
        print_error(f"some data could not be scored: {missing}; --skip-bad accepts this")
        raise typer.Exit(1)
