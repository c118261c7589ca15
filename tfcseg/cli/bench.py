"""``tfcseg bench``: how fast this machine segments, against what, and where the time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tfcseg.cli import options
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.progress import progress
from tfcseg.cli.result_file import claimed_file, show_result
from tfcseg.cli.speeds import print_benchmark, print_scaling
from tfcseg.cli.values import list_of, whole_numbers
from tfcseg.errors import UsageError
from tfcseg.model.options import InferenceOptions
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.benchmark import Request

_PARTS = ("model", "end-to-end", "stages", "limits", "memory")
_DEMO = Path(__file__).parents[2] / "assets" / "demo.mp4"


@grouped
def command(
    context: typer.Context,
    *,
    video: Annotated[
        Path | None,
        typer.Argument(help="A video.", show_default="the demo clip, or one that is made", metavar="VIDEO"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File for the result as JSON; with --scaling a folder.", show_default=False
        ),
    ] = None,
    model: options.Model = "default",
    allow_network: options.AllowNetwork = False,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Measure random weights of this backbone: mit_b0 … mit_b5, efficientnet_lite0.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[int, typer.Option(help="Classes of the random weights.")] = 150,
    synthetic: Annotated[
        str | None, typer.Option(metavar="WxH", help="Make a clip of this size, e.g. 854x480.", show_default=False)
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Parts to measure.", show_default=",".join(_PARTS), callback=list_of("part", lambda: _PARTS)),
    ] = None,
    frames: Annotated[int, typer.Option(help="Decoded frames per round for the network alone.")] = 24,
    clip_frames: Annotated[int, typer.Option(help="Frames per round for runs from file to files.")] = 96,
    plain_frames: Annotated[int, typer.Option(help="Frames per round for plain SegFormer.")] = 12,
    rounds: Annotated[
        int | None,
        typer.Option(help="Rounds after the one that warms up.", show_default="5, with --scaling 1"),
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(
            help="Measure and plot whole runs while this grows instead: length, resolution or classes.",
            show_default=False,
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            help="Values that --scaling goes through, e.g. 100,1000.",
            show_default="5 or 6 of them",
            callback=whole_numbers,
        ),
    ] = None,
    updated_fraction: Annotated[
        float | None,
        typer.Option(help="Choose the threshold so that this share of the points is updated.", show_default=False),
    ] = None,
    inference: Annotated[InferenceOptions, Without("mode")],
    device: DeviceOptions,
    plain_precision: Annotated[str, typer.Option(help="Precision of plain SegFormer.")] = "fp32",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Measure speed, memory and limits of this machine.

    Takes turns with tfcseg frame by frame, tfcseg with TFC, and, if transformers is installed, plain SegFormer.

    Example: tfcseg bench assets/demo.mp4 --only stages --frames 3 --rounds 1
    """
    if backbone is not None and model != "default":
        raise UsageError("--backbone is for random weights and --model for trained ones; give one of them")
    if video is not None and synthetic is not None:
        raise UsageError(f"--synthetic makes a clip, but there is one already: {str(video)!r}; leave one out")
    if scaling is not None and output is None:
        raise UsageError("--scaling writes several files; give a folder for them with -o")
    if scaling is not None and inference.compile:
        raise UsageError("--scaling measures many sizes, each of which would be compiled; leave --compile out")
    if values and scaling is None:
        raise UsageError("--values are those of --scaling; say what is to grow")
    if scaling is not None and options.was_given(context, "only"):
        raise UsageError("--only picks parts of what is measured without --scaling; leave it out")
    if scaling == "resolution" and (video is not None or synthetic is not None):
        raise UsageError("--scaling resolution makes clips of all sizes; leave VIDEO and --synthetic out")
    from tfcseg.benchmark import Request
    from tfcseg.benchmark.clips import parse_size

    request = Request(
        model=model,
        backbone=backbone,
        classes=classes,
        video=video or (_DEMO if synthetic is None and _DEMO.is_file() else None),
        inference=inference,
        updated_fraction=updated_fraction,
        device=device,
        plain_precision=plain_precision,
        frames=frames,
        clip_frames=clip_frames,
        plain_frames=plain_frames,
        rounds=rounds if rounds is not None else (5 if scaling is None else 1),
        parts=only or _PARTS,
        **({} if synthetic is None else {"synthetic_size": parse_size(synthetic)}),
    )
    if scaling is not None and output is not None:
        numbers = tuple(cast("list[int] | None", values) or ())
        _measure_scaling(request, scaling, numbers, output, overwrite=overwrite, as_json=as_json, quiet=quiet)
    else:
        _measure(request, output, overwrite=overwrite, as_json=as_json, quiet=quiet)


def _measure(request: Request, output: Path | None, *, overwrite: bool, as_json: bool, quiet: bool) -> None:
    from tfcseg.benchmark import measure
    from tfcseg.report import write_json

    inputs = [] if request.video is None else [request.video]
    with claimed_file(output, inputs, overwrite=overwrite):
        with progress(shown=not quiet) as on_step:
            result = measure(request, on_step)
        if output is not None:
            write_json(output, result)
    show_result(result, print_benchmark, output, as_json=as_json, quiet=quiet)


def _measure_scaling(
    request: Request,
    what: str,
    values: tuple[int, ...],
    folder: Path,
    *,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from tfcseg.research.scaling import measure_scaling

    with progress(shown=not quiet) as on_step:
        result = measure_scaling(request, what, folder, values, on_step, overwrite=overwrite)
    show_result(result, print_scaling, folder, as_json=as_json, quiet=quiet)
