"""A measurement's result: into a file that is claimed before anything is measured, and onto the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from tfcseg.cli import options
from tfcseg.cli.console import print_line
from tfcseg.cli.progress import OnProgress, progress
from tfcseg.cli.results import print_json

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ResultFile:
    """Where a result goes."""

    output: Annotated[Path | None, options.output("Write the result to this JSON file.")] = None
    overwrite: options.Overwrite = False


@dataclass(frozen=True, slots=True)
class FittedFile:
    """Where fitted weights go."""

    output: Annotated[
        Path | None, options.output("Weights file with what was fitted in its card; else it is printed only.")
    ] = None
    overwrite: options.Overwrite = False


def measured(
    measure: Callable[[OnProgress], _Result],
    show: Callable[[_Result], None],
    *,
    inputs: Sequence[Path],
    file: ResultFile | FittedFile,
    printing: options.Printing,
    unit: str = "",
    write: Callable[[Path, _Result], None] | None = None,
) -> _Result:
    """Measure while a bar moves, once the file can be written; write the result (as JSON) and show it."""
    from tfcseg.files import claimed_files
    from tfcseg.report.json_file import write_json

    with ExitStack() as stack:
        output = file.output
        if output is not None:
            claim = claimed_files(output.parent, [output.name], inputs=inputs, overwrite=file.overwrite)
            stack.enter_context(claim)
        with progress(unit=unit, shown=not printing.quiet) as on_progress:
            found = measure(on_progress)
        if output is not None:
            (write or write_json)(output, found)
    show_result(found, show, output, printing)
    return found


def show_result(
    found: _Result, show: Callable[[_Result], None], output: Path | None, printing: options.Printing
) -> None:
    """Print a result with ``show`` or as JSON, and the name of its file."""
    from tfcseg.report.json_file import json_object

    if printing.as_json:
        print_json(json_object(found))
    else:
        show(found)
    if output is not None and not printing.quiet:
        print_line(f"written: {output}")
