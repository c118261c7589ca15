"""``tfcseg run``: segment videos and write overlay, masks and reports."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tfcseg.cli import options
from tfcseg.cli.console import plain, print_error, print_line, print_warning, stderr
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.progress import progress
from tfcseg.cli.results import number, percent, print_json
from tfcseg.cli.values import list_of
from tfcseg.errors import FinishedError, Interrupted, LostConnection, TfcsegError, UsageError, without_passwords
from tfcseg.exports import FORMATS
from tfcseg.model.options import InferenceOptions
from tfcseg.runs.result_options import ResultOptions
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.report import ConfidenceFacts, Report
    from tfcseg.runs.inputs import Inputs as FoundInputs
    from tfcseg.runs.options import RunOptions
    from tfcseg.runs.pipeline import Progress as OnFrame
    from tfcseg.weights.loading import LoadedModel

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Videos, pictures, folders of either, - for a video on stdin, an address, or the number of a camera.",
        show_default=False,
    ),
]


InputList = Annotated[
    str | None,
    typer.Option("--inputs", help="Also read inputs from this file, or from stdin (-), one per line.", metavar="FILE"),
]
Export = Annotated[
    list[str] | None,
    typer.Option(
        help="Also write labels for other programs.",
        show_default="none",
        metavar=",".join(FORMATS),
        callback=list_of("format", lambda: FORMATS),
        autocompletion=options.completing(lambda: FORMATS),
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue where an earlier run of the same command stopped.")]
AllowNetwork = Annotated[
    bool,
    typer.Option(
        "--allow-network",
        help="Allow inputs that are addresses (http, https, rtsp, udp, tcp, srt), and models ORG/NAME.",
        is_eager=True,
    ),
]


@grouped
def command(
    *,
    inputs: Inputs = None,
    input_list: InputList = None,
    output: options.Output = None,
    model: options.Model = "default",
    start: options.Start = None,
    end: options.End = None,
    fps: options.FrameRate = None,
    classes: options.Classes = None,
    exclude: options.Exclude = None,
    export: Export = None,
    overwrite: options.Overwrite = False,
    resume: Resume = False,
    allow_network: AllowNetwork = False,
    printing: options.Printing,
    results: Annotated[ResultOptions, Without("classes", "exclude", "export")],
    inference: InferenceOptions,
    device: DeviceOptions,
) -> None:
    """Segment videos: write overlay, masks and a report.

    Example: tfcseg run assets/demo.mp4 --end 0.5 -o half_a_second
    """
    from tfcseg.runs.options import RunOptions

    results = replace(results, classes=classes or (), exclude=exclude or (), export=export or ())
    if not (results.writes_anything or printing.as_json):
        raise UsageError("all outputs are switched off; nothing would be written")
    options.check_range(start, end)
    job = RunOptions(
        inference=inference,
        device=device,
        start_s=start,
        end_s=end,
        frame_rate=fps,
        results=results,
        overwrite=overwrite,
        resume=resume,
        allow_network=allow_network,
    )
    run_all(_find_inputs(inputs, input_list), output, model, job, printing)


def _find_inputs(inputs: list[str] | None, input_list: str | None) -> FoundInputs:
    """All inputs; those of a list are a batch, however few they are."""
    from tfcseg.runs.inputs import find_inputs, read_list

    if not inputs and input_list is None:
        raise UsageError("missing argument 'INPUTS...'; see tfcseg run --help")
    found = find_inputs([*(inputs or ()), *([] if input_list is None else read_list(input_list))])
    for note in found.notes:
        print_warning(note)
    return found if input_list is None else replace(found, is_batch=True)


def run_all(found: FoundInputs, output: Path | None, model: str, job: RunOptions, printing: options.Printing) -> None:
    """Run one input after the other; those of a batch that fail are told at the end, with exit code 1."""
    from tfcseg.runs.inputs import output_folders
    from tfcseg.weights.loading import open_model

    loaded = open_model(model, job.device) if found.is_batch else model
    contents: list[Any] = []
    failures: list[tuple[str, TfcsegError]] = []
    for source, folder in zip(found.sources, output_folders(found, output, resume=job.resume), strict=True):
        try:
            contents.append(_run_one(source, folder, loaded, job, quiet=printing.quiet))
        except Interrupted:
            raise
        except TfcsegError as error:
            if not found.is_batch:
                raise
            failures.append((source, error))
            print_error(str(error))
    if printing.as_json:
        print_json(contents if found.is_batch else contents[0])
    if failures:
        _print_failures(failures, len(found.sources))
        raise typer.Exit(1)


def _run_one(source: str, folder: Path, model: str | LoadedModel, job: RunOptions, *, quiet: bool) -> Any:
    """Run one input, print its summary and return its report in JSON types. Interrupted says what is kept."""
    from tfcseg.report import to_json
    from tfcseg.runs.pipeline import run_video

    try:
        with _frame_progress(shown=not quiet) as on_frame:
            report = run_video(source, folder, model, job, on_frame)
    except FinishedError as note:
        if not quiet:
            print_line(str(note))
        return _read_report(folder)
    except LostConnection as error:
        if error.report is not None:
            told = tuple(warning for warning in error.report.warnings if warning != str(error))
            _tell(replace(error.report, warnings=told), folder, quiet=quiet)
        raise
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {_what_is_kept(folder)}") from None
    _tell(report, folder, quiet=quiet)
    return to_json(report)


def _tell(report: Report, folder: Path, *, quiet: bool) -> None:
    """Print a finished run's warnings and summary."""
    for warning in report.warnings:
        print_warning(warning)
    if not quiet:
        _print_summary(report, folder)


def _what_is_kept(folder: Path) -> str:
    from tfcseg.runs.state import unfinished_frames

    frames = unfinished_frames(folder)
    if frames == 0:
        return f"nothing in {str(folder)!r} is complete yet, so --resume would start from the beginning"
    if frames is not None:
        return f"{frames} frames are saved in {str(folder)!r}; the same command with --resume continues after them"
    if folder.exists():
        return f"complete masks and rows are kept in {str(folder)!r}; incomplete videos were removed"
    return "nothing was written"


def _read_report(folder: Path) -> Any:
    """Read the report of a finished run; None without one."""
    from tfcseg.runs.outputs import OutputDir

    try:
        return json.loads(OutputDir(folder).report_json.read_bytes())
    except (OSError, ValueError):
        return None


@contextmanager
def _frame_progress(*, shown: bool) -> Iterator[OnFrame]:
    """Progress bar with the speed; yields the callback for `run`."""
    started_s = time.monotonic()
    with progress(shown=shown) as on_progress:

        def on_frame(frame: Any, info: Any) -> None:
            speed = (frame.index + 1) / max(time.monotonic() - started_s, 1e-3)
            name = info.source.path.name if info.source.is_on_disk else info.source.name
            on_progress(name or info.source.name, frame.index + 1, info.frames_declared, f"{speed:.1f} fps")

        yield on_frame


def _print_summary(report: Report, folder: Path) -> None:
    speed, stability = report.speed, report.stability
    share, updated = stability.updated_fraction, "pixels" if report.steady else "points between keyframes"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows: list[tuple[str, str]] = [
        ("frames", f"{report.input.frames_decoded} at {report.input.width}×{report.input.height}"),
        *_dropped(report),
        (
            "speed",
            f"{number(speed.fps)} fps end to end, {number(speed.model_fps)} fps model "
            f"({report.options.device}, {report.options.precision})",
        ),
        *([("compiled", f"in {speed.compile_s:.1f} s before the first frame")] if speed.compile_s is not None else []),
        ("label change", _label_change(report)),
        ("flow consistency", _flow_consistency(report)),
        *([("confidence", _confidence(report.confidence))] if report.confidence.mean is not None else []),
        *([("updated", f"{percent(share)} of the {updated}")] if share is not None else []),
        ("classes", ", ".join(f"{c.name} {c.share:.0%}" for c in _largest(report))),
        ("written", f"{folder}: {', '.join(sorted(report.outputs.values()))}"),
    ]
    for name, value in rows:
        table.add_row(f"{name}", plain(value))
    stderr.print(table)


def _dropped(report: Report) -> list[tuple[str, str]]:
    """Row about the late frames of a live source, if there were any."""
    facts = report.input
    if not facts.frames_dropped:
        return []
    segmented = facts.frames_decoded - facts.frames_repeated
    late = facts.frames_dropped / (facts.frames_dropped + segmented)
    return [("dropped", f"{facts.frames_dropped} late frames ({late:.0%}), {segmented} segmented")]


def _label_change(report: Report) -> str:
    stability, before = report.stability, ""
    if report.steady is not None:
        before = f", before {percent(report.steady.label_change)}"
    pulse = f"; pulse {stability.pulse:.2f} (1 is steady)" if stability.pulse is not None else ""
    return f"{percent(stability.label_change)} of the pixels from frame to frame{before}{pulse}"


def _flow_consistency(report: Report) -> str:
    if report.stability.flow_consistency is None:
        return "not measured"
    before = "" if report.steady is None else f", before {percent(report.steady.flow_consistency)}"
    return f"{percent(report.stability.flow_consistency)} along optical flow{before}"


def _confidence(facts: ConfidenceFacts) -> str:
    error = facts.calibration_error
    trust = "not calibrated" if error is None else f"calibration error {error:.1%}"
    return f"{percent(facts.mean)}, {percent(facts.unsure)} of the labels below {facts.unsure_below:.0%}; {trust}"


def _largest(report: Report) -> list[Any]:
    return sorted(report.classes, key=lambda entry: -entry.share)[:5]


def _print_failures(failures: list[tuple[str, TfcsegError]], total: int) -> None:
    table = Table(title=f"{len(failures)} of {total} inputs failed", box=None, title_justify="left")
    table.add_column("input", overflow="fold")
    table.add_column("reason", overflow="fold")
    for source, error in failures:
        name = without_passwords(source)
        table.add_row(plain(name), plain(str(error).removeprefix(f"{name}: ")))
    stderr.print(table)
