"""``tfcseg export``: what a finished run wrote, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.console import one_line, print_warning
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.progress import progress
from tfcseg.cli.values import list_of
from tfcseg.exports import FORMATS
from tfcseg.runs.result_options import ResultOptions


@grouped
def command(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a finished run with masks.", show_default=False)
    ],
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="What to write.",
            show_default="all",
            metavar=",".join(FORMATS),
            callback=list_of("format", lambda: FORMATS),
            autocompletion=options.completing(lambda: FORMATS),
        ),
    ] = None,
    classes: options.Classes = None,
    exclude: options.Exclude = None,
    palette: Annotated[
        Path | None,
        typer.Option(help="Colours of classes, as for tfcseg run.", show_default="those of the run"),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="The video, for mattes.", show_default="where the run read it, or source.mp4"),
    ] = None,
    fps: options.FrameRate = None,
    overwrite: options.Overwrite = False,
    printing: Annotated[options.Printing, Without("as_json")],
) -> None:
    """Write a finished run's masks for other programs.

    Example: tfcseg export half_a_second --to coco,yolo
    """
    from tfcseg.runs.finished_run import export_run

    wanted = ResultOptions(classes=classes or (), exclude=exclude or (), palette=palette, export=to or FORMATS)
    with progress(shown=not printing.quiet) as on_progress:
        exported = export_run(
            folder,
            wanted,
            source=source,
            frame_rate=fps,
            overwrite=overwrite,
            on_frame=on_progress,
        )
    for note in exported.notes:
        print_warning(note)
    for name in exported.files.values():
        print(one_line(str(folder / name)))
