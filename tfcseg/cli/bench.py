"""``tfcseg bench``: measure how fast this machine segments and where the time goes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from tfcseg.benchmark.request import PARTS, Request
from tfcseg.cli import options
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.progress import progress
from tfcseg.cli.result_file import ResultFile, measured, show_result
from tfcseg.cli.speeds import print_benchmark, print_scaling
from tfcseg.cli.values import whole_numbers
from tfcseg.errors import UsageError
from tfcseg.model.options import InferenceOptions
from tfcseg.weights.device import DeviceOptions

_DEMO = Path(__file__).parents[2] / "assets" / "demo.mp4"


Video = Annotated[
    Path | None, typer.Argument(help="A video.", show_default="the demo clip, or a synthetic one", metavar="VIDEO")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="JSON file for the result; with --scaling a folder.", show_default=False),
]
Synthetic = Annotated[
    str | None, typer.Option(metavar="WxH", help="Make a clip of this size, e.g. 854x480.", show_default=False)
]
Only = Annotated[list[str] | None, options.some_of("part", PARTS, "Parts to measure.", default=",".join(PARTS))]
Scaling = Annotated[
    str | None,
    typer.Option(
        help="Measure and plot whole runs over growing length, resolution or classes instead.",
        show_default=False,
    ),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        help="Values for --scaling, e.g. 100,1000.",
        show_default="5 or 6 of them",
        callback=whole_numbers,
    ),
]


@grouped
def command(
    context: typer.Context,
    *,
    video: Video = None,
    output: Output = None,
    choice: options.ModelChoice,
    synthetic: Synthetic = None,
    only: Only = None,
    request: Request,
    scaling: Scaling = None,
    values: Values = None,
    inference: Annotated[InferenceOptions, Without("mode")],
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    printing: options.Printing,
) -> None:
    """Measure speed, memory and limits of this machine.

    Takes turns with tfcseg frame by frame, tfcseg with TFC, and, if transformers is installed, plain SegFormer.

    Example: tfcseg bench assets/demo.mp4 --only stages --frames 3 --rounds 1
    """
    _refuse_contradictions(context, inference)
    from tfcseg.benchmark.clips import parse_size
    from tfcseg.benchmark.measure import measure

    request = replace(
        request,
        model=choice.model,
        video=video or (_DEMO if synthetic is None and _DEMO.is_file() else None),
        synthetic_size=parse_size(synthetic) if synthetic is not None else request.synthetic_size,
        parts=only or PARTS,
        inference=inference,
        device=device,
        rounds=1 if scaling is not None and not options.was_given(context, "rounds") else request.rounds,
    )
    if scaling is not None and output is not None:
        from tfcseg.research.scaling import measure_scaling

        numbers = tuple(cast("list[int] | None", values) or ())
        with progress(shown=not printing.quiet) as on_step:
            found = measure_scaling(request, scaling, output, numbers, on_step, overwrite=overwrite)
        show_result(found, print_scaling, output, printing)
        return
    inputs = [] if request.video is None else [request.video]
    file = ResultFile(output, overwrite)
    measured(partial(measure, request), print_benchmark, inputs=inputs, file=file, printing=printing)


def _refuse_contradictions(context: typer.Context, inference: InferenceOptions) -> None:
    """UsageError for options that exclude each other."""
    given = context.params
    scaling, has_clip = given["scaling"], given["video"] is not None
    if given["backbone"] is not None and given["model"] != "default":
        raise UsageError("--backbone uses random weights and --model trained ones; give only one of them")
    if has_clip and given["synthetic"] is not None:
        raise UsageError(f"--synthetic makes a clip, but there is one already: {str(given['video'])!r}; leave one out")
    if given["values"] and scaling is None:
        raise UsageError("--values needs --scaling")
    if scaling is None:
        return
    if given["output"] is None:
        raise UsageError("--scaling writes several files; give a folder with -o")
    if inference.compile:
        raise UsageError("--scaling would compile for every size; leave --compile out")
    if options.was_given(context, "only"):
        raise UsageError("--only has no effect with --scaling; leave it out")
    if scaling == "resolution" and (has_clip or given["synthetic"] is not None):
        raise UsageError("--scaling resolution makes its own clips; leave VIDEO and --synthetic out")
