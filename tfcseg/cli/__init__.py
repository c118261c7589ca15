"""The command line: parse, call, print. Results go to stdout, everything else to stderr.

torch is imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Annotated

import typer

from tfcseg.allocator import keep_freed_memory
from tfcseg.cli import bench, compare, convert, doctor, evaluate, export, models, research, run, train
from tfcseg.cli.program import Program
from tfcseg.machine import set_default_threads

app = typer.Typer(
    name="tfcseg",
    cls=Program,
    help="Stable, fast semantic segmentation of any video (Temporal Feature Correlation, AAAI 2024).",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("run")(run.command)
app.command("compare")(compare.command)
app.command("eval")(evaluate.command)
app.command("models")(models.command)
app.command("export")(export.command)
app.command("convert")(convert.command)
app.command("bench")(bench.command)
app.command("doctor")(doctor.command)
app.command("train")(train.command)
app.add_typer(research.app, name="research")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tfcseg {version('tfcseg')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point: run a command and exit with its code; `Program` says what goes wrong.

    0 done · 1 failed · 2 usage · 130 interrupted (Ctrl-C or SIGTERM, after everything unfinished was removed).
    """
    signal.signal(signal.SIGTERM, _interrupt)
    keep_freed_memory()
    set_default_threads(os.environ)
    app()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
