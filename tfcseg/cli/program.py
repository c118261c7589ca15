"""The program around the commands: turns every error into one line and an exit code."""

from __future__ import annotations

import errno
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from tfcseg.cli.console import print_error
from tfcseg.errors import Interrupted, TfcsegError, UsageError
from tfcseg.files import errors_as
from tfcseg.spelling import hint, likely_names

# typer uses click's exceptions or, in later versions, its own copies; this is the usage error in either case.
_TyperUsageError = cast("type[Exception]", typer.BadParameter.__base__)
logger = logging.getLogger(__name__)

_reports: list[TfcsegError] = []
"""Errors that were reported since the program began."""


class Command(TyperCommand):
    """A command whose help lists options under headings and never truncates a name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command's arguments; an error names the command."""
        try:
            return super().parse_args(ctx, args)
        except _TyperUsageError as error:
            cast(Any, error).ctx = ctx
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options by group."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            default = "Arguments" if isinstance(param, TyperArgument) else "Options"
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "rich_help_panel", None) or default, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Program(TyperGroup):
    """Group of commands that reports errors in one line instead of typer's boxes."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and exit with its code. Warnings of other libraries go to the log, not to stderr."""
        logging.captureWarnings(True)
        _reports.clear()
        try:
            code = super().main(*args, **{"prog_name": "tfcseg", **extra, "standalone_mode": False})
        except typer.Abort:
            code = Interrupted.exit_code
        finally:
            logging.captureWarnings(False)
        if code == Interrupted.exit_code and not _reports:  # interrupted between the program's own steps
            print_error("interrupted")
        sys.exit(code)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Parse the program's own arguments."""
        with _reported():
            return super().make_context(*args, **extra)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the program's own arguments; without any, print the help."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit(UsageError.exit_code)
        _refuse_empty(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command and report its failure while the log is open."""
        with _reported():
            with errors_as(TfcsegError, "the current folder is gone", "; change to another one"):
                Path.cwd()  # without it, PyTorch would end the program
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first argument names, or raise UsageError with the closest one."""
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            raise UsageError(f"no command {name!r}; {hint(name, list(self.commands))}")
        return super().resolve_command(ctx, args)


def _refuse_empty(args: list[str]) -> None:
    """Raise UsageError for an empty argument or value, as an unset variable leaves it."""
    options = args[: args.index("--")] if "--" in args else args
    for before, argument in zip(["tfcseg", *args], args, strict=False):
        if not argument or (argument in options and re.fullmatch(r"--[a-z-]+=", argument)):
            raise UsageError(f"the argument after {before!r} is empty: {argument!r}; is a variable unset?")


@contextmanager
def _reported() -> Iterator[None]:
    """Print what fails inside, in one line, and exit with its code; typer itself says nothing of interrupts."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (TfcsegError, _TyperUsageError) as error:
        _exit_with(error if isinstance(error, TfcsegError) else UsageError(_explain(error)))
    except KeyboardInterrupt:
        _exit_with(Interrupted("interrupted; unfinished files were removed"))
    except typer.Exit:
        raise
    except Exception as error:
        # What the system says of a path, wherever it is looked at.
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.ENAMETOOLONG):
            _exit_with(TfcsegError(f"{error.filename}: {error.strerror}"))
        logger.exception("a bug in tfcseg")
        raise


def _exit_with(error: TfcsegError) -> NoReturn:
    _reports.append(error)
    print_error(str(error))
    raise typer.Exit(error.exit_code) from None


def _explain(error: Exception) -> str:
    found: Any = error
    option, near = getattr(found, "option_name", None), getattr(found, "possibilities", None)
    if option and near:
        return f"no such option {option}; did you mean {' or '.join(likely_names(option, near) or sorted(near))}?"
    message = found.format_message().rstrip(".")
    command = "tfcseg" if found.ctx is None else found.ctx.command_path
    return f"{message[:1].lower()}{message[1:]}; see {command} --help"
