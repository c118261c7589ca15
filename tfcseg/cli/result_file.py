"""Write a measurement's result to a JSON file that is claimed in advance, and to the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tfcseg.cli.console import print_line
from tfcseg.cli.results import print_json

_Result = TypeVar("_Result")


@contextmanager
def claimed_file(output: Path | None, inputs: Sequence[Path], *, overwrite: bool) -> Iterator[None]:
    """Check that the file can be written before anything is measured."""
    from tfcseg.files import claimed_files

    if output is None:
        yield
        return
    with claimed_files(output.parent, [output.name], inputs=inputs, overwrite=overwrite):
        yield


def show_result(
    result: _Result, show: Callable[[_Result], None], output: Path | None, *, as_json: bool, quiet: bool
) -> None:
    """Print a result with ``show`` or as JSON, and the name of its file."""
    from tfcseg.report import json_object

    if as_json:
        print_json(json_object(result))
    else:
        show(result)
    if output is not None and not quiet:
        print_line(f"written: {output}")
