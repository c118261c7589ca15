"""The command line. Results go to stdout, everything else to stderr.

torch is imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import typer

from tfcseg.cli import bench, compare, evaluate, export, installed, research, run, train
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
_COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.command,
    "models": installed.models_command,
    "doctor": installed.doctor_command,
    "export": export.command,
    "compare": compare.command,
    "eval": evaluate.command,
    "steady": run.steady_command,
    "bench": bench.command,
    "convert": export.convert_command,
    "train": train.command,
    "adapt": train.adapt_command,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=Command)(_command)
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
