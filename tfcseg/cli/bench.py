"""``tfcseg bench``: measure how fast this machine segments and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from tfcseg.benchmark.request import PARTS, Request
from tfcseg.cli import options
from tfcseg.cli.console import plain, progress
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.options import frame_size, whole_numbers
from tfcseg.cli.results import ResultFile, device_of, measured, new_table, number, print_results, show_result, size_of
from tfcseg.errors import UsageError
from tfcseg.model.options import InferenceOptions, keyframe_distance
from tfcseg.report.html import NOTHING
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.benchmark.timing import Benchmark, Speed, Spread
    from tfcseg.research.scaling import Scaling

_DEMO = Path(__file__).parents[2] / "assets" / "demo.mp4"


Video = Annotated[
    Path | None, typer.Argument(help="A video.", show_default="the demo clip, or a synthetic one", metavar="VIDEO")
]
Output = Annotated[Path | None, options.output("JSON file for the result; with --scaling a folder.")]
Synthetic = Annotated[str | None, typer.Option(metavar="WxH", help="Make a clip of this size, e.g. 854x480.")]
Only = Annotated[list[str] | None, options.some_of("part", PARTS, "Parts to measure.", default=",".join(PARTS))]
Growth = Annotated[
    str | None, typer.Option(help="Measure and plot whole runs over growing length, resolution or classes instead.")
]
Values = Annotated[
    list[str] | None,
    typer.Option(help="Values for --scaling, e.g. 100,1000.", show_default="5 or 6 of them", callback=whole_numbers),
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
    scaling: Growth = None,
    values: Values = None,
    inference: Annotated[InferenceOptions, Without("mode")],
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    printing: options.Printing,
) -> None:
    """Measure speed, memory and limits of this machine.

    Takes turns with tfcseg frame by frame, tfcseg with TFC, and, if transformers is installed, plain SegFormer.

    Example: tfcseg bench assets/demo.mp4 --only breakdown --frames 3 --rounds 1
    """
    _refuse_contradictions(context)
    from tfcseg.benchmark.measure import measure

    request = replace(
        request,
        model=choice.model,
        video=video or (_DEMO if synthetic is None and _DEMO.is_file() else None),
        synthetic_size=frame_size(synthetic, 16) if synthetic is not None else request.synthetic_size,
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
        show_result(found, _print_scaling, output, printing)
        return
    inputs = [] if request.video is None else [request.video]
    file = ResultFile(output, overwrite)
    measured(partial(measure, request), _print_benchmark, inputs=inputs, file=file, printing=printing)


def _refuse_contradictions(context: typer.Context) -> None:
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
    if options.was_given(context, "only"):
        raise UsageError("--only has no effect with --scaling; leave it out")
    if scaling == "resolution" and (has_clip or given["synthetic"] is not None):
        raise UsageError("--scaling resolution makes its own clips; leave VIDEO and --synthetic out")


def _print_benchmark(result: Benchmark) -> None:
    parts = (("the network alone", "model_only"), ("file to files", "end_to_end"))
    speeds = [_speeds(title, found, result.ratios[name]) for title, name in parts if (found := getattr(result, name))]
    steps = [_steps(title, found) for title, found in result.breakdown.items()]
    print_results(_conditions(result), *speeds, *steps, *_limits(result), *_rest(result))


def _print_scaling(result: Scaling) -> None:
    table = new_table([_bold(result.scaling), "", "ms per frame", "range", "peak MiB", "GPU MiB"])
    for point in result.points:
        if point.ms_per_frame is None:
            table.add_row(str(point.value), point.contender, plain(str(point.error)))
            continue
        times = point.ms_per_frame
        memory = number(point.peak_mib, 0), number(point.gpu_peak_mib, 0)
        table.add_row(str(point.value), point.contender, *_spread(times, 1), *memory)
    print_results(_conditions(result), table)


def _conditions(result: Benchmark | Scaling) -> str:
    source, network = (size_of(result.resolution[name]) for name in ("source", "network"))
    weights = " (random weights)" if result.random_weights else ""
    workers = result.options["workers"]
    beside = f", {workers} intervals at a time" if workers > 1 else ""
    device = f"{device_of(result)}{beside}"
    return (
        f"{result.model.name}{weights}, {result.model.classes} classes · {result.input['name']} {source}, "
        f"network {network} · interval {keyframe_distance(result.options)}, {result.options['correlation']} · "
        f"{result.device_name} ({device}), torch {result.versions['torch']}"
    )


def _speeds(title: str, speeds: Mapping[str, Speed], ratios: Mapping[str, float]) -> Table:
    table = new_table([_bold(title), "fps", "ms per frame", "range", "to plain", "to image"])
    for name, speed in speeds.items():
        to = [ratios.get(f"{name}/{other}") for other in ("plain", "image")]
        ratio = [NOTHING if value is None else f"{value:.2f}×" for value in to]
        table.add_row(name, number(speed.fps, 2), *_spread(speed.ms_per_frame, 1), *ratio)
    return table


def _steps(title: str, steps: Mapping[str, Spread]) -> Table:
    table = new_table([_bold(title), "ms per frame", "range"])
    for name, times in steps.items():
        if times.high:
            table.add_row(name, *_spread(times, 2))
    return table


def _bold(title: str) -> str:
    return f"[bold]{title}[/]"


def _spread(times: Spread, digits: int) -> tuple[str, str]:
    return number(times.median, digits), f"{number(times.low, digits)} to {number(times.high, digits)}"


def _limits(result: Benchmark) -> list[str]:
    limits: Mapping[str, Any] = result.limits
    if not limits:
        return []
    lines = [
        f"without a network: decoding {limits['decode_fps'].median:.0f} fps, "
        f"decoding and encoding {limits['decode_encode_fps'].median:.0f} fps",
        f"matrix product: {limits['matrix_gflops_per_s']:.0f} GFLOP/s",
    ]
    for mode, gflops in limits["gflops_per_frame"].items():
        share = limits["share_of_ceiling"].get(mode)
        reached = "" if share is None else f", {share:.0f} % of the matrix product's rate"
        lines.append(f"{mode}: {gflops:.2f} GFLOPs per frame{reached}")
    return lines


def _rest(result: Benchmark) -> list[str]:
    lines = [f"same labels, {pair.replace('|', ' and ')}: {share:.3f} %" for pair, share in result.agreement.items()]
    if result.updated_fraction is not None:
        lines.append(f"points updated between keyframes: {result.updated_fraction:.2f} %")
    for name, share in result.network_share.items():
        lines.append(f"network alone, {name}: {share:.0f} % of the time file to files")
    lines += [f"{part}: {share:.1f} % of the time file to files" for part, share in result.costs.items()]
    for name, memory in result.memory.items():
        gpu = "" if memory.gpu_peak_mib is None else f", GPU {memory.gpu_peak_mib:.0f} MiB"
        lines.append(f"memory, {name}: {memory.peak_mib:.0f} MiB, {memory.before_mib:.0f} before the first frame{gpu}")
    return [*lines, f"left out: {'; '.join(result.left_out)}"]
