"""The command line: parse, call, print. Results go to stdout, everything else to stderr.

torch is imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from tfcseg.cli import compare, evaluate, models, publish, run, train
from tfcseg.cli.console import print_error
from tfcseg.errors import TfcsegError

INTERRUPTED = 130

app = typer.Typer(
    name="tfcseg",
    help="Stable, fast semantic segmentation of any video (Temporal Feature Correlation, AAAI 2024).",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("run")(run.command)
app.command("eval")(evaluate.command)
app.command("compare")(compare.command)
app.command("train")(train.command)
app.command("models")(models.command)
app.command("publish")(publish.command)


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
    """Entry point: run a command and turn what goes wrong into one line and an exit code.

    0 done · 1 failed · 2 usage · 130 interrupted (Ctrl-C or SIGTERM, after everything unfinished was removed).
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except TfcsegError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print_error("interrupted; finished masks and rows are kept, unfinished videos were removed")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left (`| head`). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
