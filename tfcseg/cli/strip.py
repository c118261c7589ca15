"""``tfcseg strip``: a picture of a few frames, and of what TFC makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from tfcseg.cli import options
from tfcseg.cli.console import one_line
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.progress import stage_progress
from tfcseg.cli.values import whole_numbers
from tfcseg.model.options import InferenceOptions
from tfcseg.weights.device import DeviceOptions


@grouped
def command(
    context: typer.Context,
    *,
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="A video, a folder of images, or - (stdin).", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The picture, .png or .jpg.", show_default="<name>_strip.png"),
    ] = None,
    frames: Annotated[
        list[str] | None,
        typer.Option(help="Frames to show, counted from 0.", show_default="0,1,2,3", callback=whole_numbers),
    ] = None,
    model: options.Model = "default",
    inference: Annotated[InferenceOptions, Without("mode", "latency", "compile")],
    start: options.Start = None,
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Draw frames of a video: source, labels by image and by tfc, similarity, and the points that were recomputed.

    Example: tfcseg strip assets/demo.mp4 --frames 1,3,4 --size 160 -o strip.png
    """
    from tfcseg.comparison.strip import make_strip

    with stage_progress("frames", shown=not quiet) as on_progress:
        path = make_strip(
            source,
            output,
            model,
            frames=cast("list[int]", frames) or range(4),
            start_s=start,
            device=device,
            overwrite=overwrite,
            on_frame=lambda done, total: on_progress("segmenting", done, total),
            inference=inference,
        )
    print(one_line(str(path)))
