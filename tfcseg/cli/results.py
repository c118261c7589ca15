"""Results on stdout (JSON for programs, lines and tables for people) and in files."""

from __future__ import annotations

import itertools
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfcseg.cli import options
from tfcseg.cli.console import is_terminal, plain, print_error, print_line, progress, stderr
from tfcseg.report.html import shown_number

_WIDE = 1000
"""Columns where no terminal shows the text: files and programs need whole lines."""


def number(value: object, decimals: int = 1) -> str:
    """``value`` as on pages, but with commas in place of narrow spaces, which not every terminal has."""
    return shown_number(value, decimals).replace("\u202f", ",")


def print_json(content: Any) -> None:
    """Print a result for programs."""
    json.dump(content, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_results(*parts: str | Text | Table, is_wide: bool = False, on_stderr: bool = False) -> None:
    """Print lines and tables; ``is_wide``: tables may be wider than the terminal."""
    is_shown = is_terminal() if on_stderr else sys.stdout.isatty()
    console = Console(stderr=on_stderr, highlight=False, emoji=False, width=None if is_shown else _WIDE)
    for part in parts:
        text = plain(part) if isinstance(part, str) else part
        _print_on(stderr if on_stderr and is_shown else console, text, is_wide or not isinstance(part, Table))


def _print_on(console: Console, text: Text | Table, soft_wrap: bool) -> None:
    """Print, in files without the blanks that fill the lines of a table."""
    if console.is_terminal:
        console.print(text, soft_wrap=soft_wrap)
        return
    with console.capture() as printed:
        console.print(text, soft_wrap=soft_wrap)
    console.file.write("".join(f"{line.rstrip()}\n" for line in printed.get().splitlines()))


def print_tables(text: str, *, on_stderr: bool = False) -> None:
    """Print text with Markdown tables (research/tables.py): columns are aligned, and marks such as backticks go."""
    for is_table, lines in itertools.groupby(text.strip().splitlines(), lambda line: line.startswith("|")):
        if is_table:
            print_results(_aligned(lines), on_stderr=on_stderr)
        else:
            print_results(*lines, on_stderr=on_stderr)


def _aligned(lines: Iterable[str]) -> Table:
    heads, _, *rows = (
        [re.sub(r"`|\*\*|\\(?=\|)", "", cell).strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines
    )
    corner, *titles = heads
    widths = [max([12, *(len(row[at]) for row in rows)]) for at in range(1, len(heads))]
    wrapped = ("\n".join(textwrap.wrap(*pair)) for pair in zip(titles, widths, strict=True))
    table = new_table([corner, *wrapped])
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def new_table(headings: Iterable[str | Text]) -> Table:
    """Table whose first column is aligned to the left, the others, of numbers, to the right.

    Where a console is narrow, names and headings are wrapped; numbers are never cut.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
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


@dataclass(frozen=True, slots=True)
class ResultFile:
    """Where a result goes."""

    output: Annotated[
        Path | None, options.output("Write the result to this file: JSON, or weights with fitted values.")
    ] = None
    overwrite: options.Overwrite = False


def measured(
    measure: Callable[..., _Result],
    text: Callable[[list[dict[str, Any]]], str],
    *,
    inputs: Sequence[Path],
    file: ResultFile,
    printing: options.Printing,
    unit: str = "",
    write: Callable[[Path, _Result], None] | None = None,
) -> _Result:
    """Measure while a bar moves, once the file can be written; write the result (as JSON) and print it.

    ``text`` makes lines and Markdown tables for people of a list of such results.
    """
    from tfcseg.files import claimed_files, json_object, write_json

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
        print_json(json_object(found))
    else:
        print_tables(text([json_object(found)]))
    if output is not None and not printing.quiet:
        print_line(f"written: {output}")
    return found


def fail_if_incomplete(skipped: Mapping[str, int], *, is_incomplete: bool, skip_bad: bool) -> None:
    """Exit with code 1 if data was missing without --skip-bad. The scores have been printed before."""
    if is_incomplete and not skip_bad:
        missing = ", ".join(f"{kind} ({count})" for kind, count in skipped.items() if kind != "too short")
        print_error(f"some data could not be scored: {missing}; --skip-bad accepts this")
        raise typer.Exit(1)
