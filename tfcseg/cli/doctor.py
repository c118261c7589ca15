"""``tfcseg doctor``: check the installation and say how to fix it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from tfcseg.cli import options
from tfcseg.cli.console import is_terminal, one_line, plain, stderr
from tfcseg.cli.results import print_json, print_results

if TYPE_CHECKING:
    from tfcseg.doctor.checks import Diagnosis

_COLOURS = {"ok": "green", "note": "yellow", "broken": "bold red"}


def command(as_json: options.Json = False, verbose: options.Verbose = False, log_file: options.LogFile = None) -> None:
    """Check this installation and say what to do.

    Looks at libraries, ffmpeg, GPU and weights, and makes a short test run.

    Exit code 1 if anything that is required does not work.

    Example: tfcseg doctor
    """
    from tfcseg.doctor.examination import examine

    waiting: AbstractContextManager[Any] = stderr.status("examining") if is_terminal() else nullcontext()
    with waiting as status:
        diagnosis = examine(lambda name: status.update(one_line(f"examining: {name}")) if status else None)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        _print(diagnosis)
    if diagnosis.broken:
        raise typer.Exit(1)


def _print(diagnosis: Diagnosis) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in diagnosis.findings:
        table.add_row(f"[{_COLOURS[finding.status]}]{finding.status}[/]", plain(finding.name), plain(finding.found))
        if finding.advice is not None:
            table.add_row("", "", plain(f"-> {finding.advice}"))
    broken = ", ".join(finding.name for finding in diagnosis.broken)
    print_results(table, f"broken: {broken}" if broken else "Everything that is required works.")
