"""``tfcseg compare``: compare modes of a model on a video or a VSPW folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.console import (
    fail_if_incomplete,
    new_table,
    print_json,
    print_line,
    print_results,
    print_warning,
    progress,
)
from tfcseg.cli.groups import Without, grouped, names_of
from tfcseg.comparison import DEFAULT_MODES
from tfcseg.errors import UsageError
from tfcseg.evaluation.scope import Scope
from tfcseg.model.options import MODE_VARIANTS, InferenceOptions, keyframe_distance
from tfcseg.report.html import shown_number as number
from tfcseg.spelling import count_of, visible
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.comparison.plan import Comparison, Metric

_DATASET_OPTIONS = names_of(Scope)
_VIDEO_OPTIONS = ("start", "end")
_NOT_FOR_FRAMES = (*_DATASET_OPTIONS, "modes", "baseline", "end", "as_json")

Source = Annotated[str, typer.Argument(metavar="INPUT|ROOT", help="A video, a folder of images, or a VSPW folder.")]
Output = Annotated[
    Path | None, options.output_to("Folder for the results; with --frames a picture file.", "<name>_compare")
]
Modes = Annotated[
    list[str] | None,
    options.some_of(
        "mode",
        MODE_VARIANTS,
        "Modes to compare. tfc-paper and tfc-aligned set the correlation, too.",
        default=",".join(DEFAULT_MODES),
    ),
]
Frames = Annotated[
    list[str] | None,
    typer.Option(
        help="Only draw these frames (counted from 0) in one picture, -o FILE: source, labels by image and by tfc, "
        "similarity, updated points if there are any.",
        callback=options.whole_numbers,
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(
        help="Masks of another program instead of mode image: DIR/*.png, one per frame of the video, or the folder of "
        "a run; for a VSPW folder DIR/<video>/<frame>.png."
    ),
]


@grouped
def command(
    context: typer.Context,
    *,
    source: Source,
    output: Output = None,
    modes: Modes = None,
    frames: Frames = None,
    baseline: Baseline = None,
    model: options.Model = "default",
    allow_network: options.AllowNetworkForVideos = False,
    inference: Annotated[InferenceOptions, Without("mode", "latency")],
    flow_consistency: options.MeasureFlowConsistency = True,
    start: options.Start = None,
    end: options.End = None,
    scope: Scope,
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    printing: options.Printing,
) -> None:
    """Compare the same weights with and without TFC.

    Reports speed, stability, GFLOPs and pictures; on a VSPW folder also scores.

    Example: tfcseg compare assets/demo.mp4 --end 0.5 --size 160 -o comparison
    """
    from tfcseg.comparison.compare import compare_dataset, compare_video
    from tfcseg.comparison.pictures import make_frame_grid
    from tfcseg.comparison.plan import Plan

    chosen = source, output, model
    is_dataset = _is_vspw(Path(source), scope.split)
    if frames:
        _check_frames(context, source, is_dataset=is_dataset)
        with progress(unit="frames", shown=not printing.quiet) as on_progress:
            path = make_frame_grid(
                *chosen,
                frames=list(map(int, frames)),
                start_s=start,
                device=device,
                overwrite=overwrite,
                allow_network=allow_network,
                on_progress=on_progress,
                inference=inference,
            )
        print(visible(str(path)))
        return
    kind = "videos, but this is a VSPW folder" if is_dataset else "VSPW folders, which this is not"
    others = _VIDEO_OPTIONS if is_dataset else _DATASET_OPTIONS
    options.refuse_given(context, others, f"is for {kind}: {source!r}; leave it out")
    options.check_range(start, end)
    plan = Plan(modes or DEFAULT_MODES, baseline, inference, flow_consistency)
    with progress(unit="videos" if is_dataset else "frames", shown=not printing.quiet) as on_progress:
        compare: Callable[..., Comparison] = (
            partial(compare_dataset, scope=scope)
            if is_dataset
            else partial(compare_video, start_s=start, end_s=end, allow_network=allow_network)
        )
        result = compare(*chosen, plan, device=device, overwrite=overwrite, on_progress=on_progress)
    _show(result, source, output, printing)
    fail_if_incomplete(result.skipped, is_incomplete=result.is_incomplete, skip_bad=scope.skip_bad)


def _check_frames(context: typer.Context, source: str, *, is_dataset: bool) -> None:
    if is_dataset:
        clip = str(Path(source, "data", "<video>", "origin"))
        raise UsageError(f"--frames needs one video, but {source!r} is a VSPW folder; give one of it: {clip!r}")
    options.refuse_given(context, _NOT_FOR_FRAMES, "has no effect here; leave it out with --frames")


def _show(result: Comparison, source: str, output: Path | None, printing: options.Printing) -> None:
    from tfcseg.runs.outputs import default_output

    for warning in result.warnings:
        print_warning(warning)
    if printing.as_json:
        print_json(result)
    else:
        _print_comparison(result)
    if not printing.quiet:
        folder = output or default_output(source, "compare")
        for found in result.differences:
            print_line(f"{found.differing:.1f} % differ at {found.time_s:.2f} s: {folder / found.picture}")
        print_line(f"written: {folder}: {', '.join(sorted(result.outputs.values()))}")


def _is_vspw(path: Path, split: str) -> bool:
    """Whether ``path`` looks like a VSPW folder. Its reader reports what is missing."""
    from tfcseg.evaluation.vspw import LABEL_FILE

    return (path / LABEL_FILE).is_file() or ((path / "data").is_dir() and (path / f"{split}.txt").is_file())


def _print_comparison(result: Comparison) -> None:
    """Print a column per mode, and one that compares a pair: ratios, or differences of percentages."""
    candidate, reference = result.ratio_of
    titles = result.titles
    pair = [f"{candidate} to {titles[reference]}"] if candidate != reference else []
    table = new_table(["", *titles.values(), *pair])
    for metric, title, values in result.rows():
        cells = [number(value, metric.digits) for value in values.values()]
        if pair:
            cells.append(_step(metric, values[candidate], values[reference]))
        table.add_row(f"{title} (%)" if metric.is_percentage else title, *cells)
    (height, width), distance = result.resolution["network"], keyframe_distance(result.options)
    keyframes = "adaptive keyframes" if distance == "adaptive" else f"keyframe interval {distance}"
    device = f"{result.device}, {result.precision}"
    if result.device == "cpu":
        device += f", {count_of(result.threads, 'thread')}"
    print_results(f"{result.model.name} at {width}×{height} · {keyframes} · {device}", table)


def _step(metric: Metric, candidate: float | None, reference: float | None) -> str:
    """From the reference to the candidate: ``+1.23`` for percentages, ``1.23×`` for quantities."""
    if candidate is None or reference is None:
        return ""
    if metric.is_percentage:
        return f"{candidate - reference:+.{metric.digits}f}"
    return f"{candidate / reference:.2f}×" if reference else ""
