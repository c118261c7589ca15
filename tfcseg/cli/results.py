"""Print results on stdout: JSON for programs, lines, tables and numbers for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfcseg.cli.console import is_terminal, plain, stderr
from tfcseg.report.html import shown_number, shown_percent

if TYPE_CHECKING:
    from tfcseg.report.conditions import ModelConditions

percent = shown_percent

_WIDE = 1000
"""Columns where no terminal shows the text: files and programs need whole lines."""


def number(value: object, decimals: int = 1, unit: str = "") -> str:
    """``value`` as on pages, but with commas in place of narrow spaces, which not every terminal has."""
    return shown_number(value, decimals, unit).replace("\u202f", ",")


def print_json(content: Any) -> None:
    """Print a result for programs."""
    json.dump(content, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_results(*parts: str | Text | Table, is_wide: bool = False) -> None:
    """Print lines and tables; ``is_wide``: tables may be wider than the terminal."""
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _WIDE)
    for part in parts:
        text = plain(part) if isinstance(part, str) else part
        console.print(text, soft_wrap=is_wide or not isinstance(part, Table))


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
    console = stderr if is_terminal() else Console(stderr=True, highlight=False, emoji=False, width=_WIDE)
    console.print(facts_table(rows))


def facts_table(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(plain(name), plain(value))
    return table


def size_of(height_width: Sequence[int]) -> str:
    """``640×480`` of (480, 640)."""
    return "×".join(str(side) for side in reversed(height_width))


def device_of(result: ModelConditions) -> str:
    """Where a result was measured: device, precision and, on a CPU, threads."""
    threads = f", {result.threads} {'thread' if result.threads == 1 else 'threads'}" if result.device == "cpu" else ""
    return f"{result.device}, {result.precision}{threads}"
