"""The command line. Results go to stdout, everything else to stderr.

torch is imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Annotated

import typer

from tfcseg.cli import adapt, bench, compare, convert, doctor, evaluate, export, models, research, run, steady, train
from tfcseg.cli.program import Command, Program
from tfcseg.machine import collect_rarely, keep_freed_memory, set_default_threads

app = typer.Typer(
    name="tfcseg",
    cls=Program,
    help="Steady, fast semantic segmentation of any video. Try: tfcseg run VIDEO",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _name, _module in {
    **{"run": run, "models": models, "doctor": doctor, "export": export, "compare": compare, "eval": evaluate},
    **{"steady": steady, "bench": bench, "convert": convert, "train": train, "adapt": adapt},
}.items():
    app.command(_name, cls=Command)(_module.command)
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
    """Entry point: run a command and exit with its code. `Program` reports errors.

    0 done · 1 failed · 2 usage · 130 interrupted (Ctrl-C or SIGTERM, after unfinished files were removed).
    """
    signal.signal(signal.SIGTERM, _interrupt)
    keep_freed_memory()
    collect_rarely()
    set_default_threads(os.environ)
    app()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
