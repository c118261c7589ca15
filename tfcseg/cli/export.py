"""``tfcseg export``: masks of a finished run, in formats of other programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.console import one_line, print_warning, progress
from tfcseg.cli.groups import Only, Without, grouped
from tfcseg.exports import FORMATS
from tfcseg.runs.options import ResultOptions


@grouped
def command(
    *,
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a finished run with masks.")],
    to: Annotated[
        list[str] | None, options.some_of("format", FORMATS, f"What to write: {', '.join(FORMATS)}.", default="all")
    ] = None,
    results: Annotated[ResultOptions, Only("classes", "exclude", "palette")],
    source: Annotated[
        str | None, typer.Option(help="The video, for mattes.", show_default="where the run read it, or source.mp4")
    ] = None,
    fps: options.FrameRate = None,
    overwrite: options.Overwrite = False,
    printing: Annotated[options.Printing, Without("as_json")],
) -> None:
    """Write a finished run's masks for other programs.

    Example: tfcseg export half_a_second --to coco,yolo
    """
    from tfcseg.runs.exporting import export_run

    with progress(shown=not printing.quiet) as on_progress:
        wanted = replace(results, export=to or FORMATS)
        exported = export_run(folder, wanted, source=source, frame_rate=fps, overwrite=overwrite, on_frame=on_progress)
    for note in exported.notes:
        print_warning(note)
    for name in exported.files.values():
        print(one_line(str(folder / name)))
