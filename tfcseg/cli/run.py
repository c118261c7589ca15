"""``tfcseg run`` and ``tfcseg steady``: overlay, masks and reports of videos."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfcseg.cli import options
from tfcseg.cli.console import print_error, print_facts, print_json, print_line, print_warning, progress
from tfcseg.cli.groups import Without, grouped
from tfcseg.errors import Interrupted, TfcsegError, UsageError, without_passwords
from tfcseg.exports import MATTE_NAME
from tfcseg.model.options import InferenceOptions
from tfcseg.report.html import shown_number as number
from tfcseg.report.html import shown_percent as percent
from tfcseg.runs.options import ResultOptions, RunOptions, SteadyOptions
from tfcseg.runs.state import unfinished_frames
from tfcseg.spelling import count_of
from tfcseg.weights.device import DeviceOptions
from tfcseg.workers import WorkerOptions

if TYPE_CHECKING:
    from tfcseg.report.schema import Report
    from tfcseg.runs.batch import Outcome
    from tfcseg.runs.inputs import Inputs as FoundInputs
    from tfcseg.runs.pipeline import Listener

logger = logging.getLogger(__name__)

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Videos, pictures, folders of either, - for a video on stdin, an address, or the number of a camera.",
    ),
]

InputList = Annotated[
    str | None,
    typer.Option("--inputs", help="Also read inputs from this file, or from stdin (-), one per line.", metavar="FILE"),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue where the same command stopped; finished inputs are skipped.")
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
    overwrite: options.Overwrite = False,
    resume: Resume = False,
    allow_network: options.AllowNetworkForVideos = False,
    printing: options.Printing,
    results: ResultOptions,
    inference: InferenceOptions,
    device: DeviceOptions,
    workers: WorkerOptions,
) -> None:
    """Segment videos: write overlay, masks and a report.

    Example: tfcseg run assets/demo.mp4 --end 0.5 -o half_a_second
    """
    if not (results.kinds or results.formats or printing.as_json):
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
    run_all(_find_inputs(inputs, input_list), output, model, job, printing, crew=workers)


def _find_inputs(inputs: list[str] | None, input_list: str | None) -> FoundInputs:
    """All inputs; those of a list are a batch, however few they are."""
    from tfcseg.runs.inputs import find_inputs, read_list

    if not inputs and input_list is None:
        raise UsageError("missing argument 'INPUTS...'; see tfcseg run --help")
    found = find_inputs([*(inputs or ()), *([] if input_list is None else read_list(input_list))])
    for note in found.notes:
        print_warning(note)
    return found if input_list is None else replace(found, is_batch=True)


def run_all(
    found: FoundInputs,
    output: Path | None,
    model: str,
    job: RunOptions,
    printing: options.Printing,
    *,
    crew: WorkerOptions = WorkerOptions(),
) -> None:
    """Run all inputs; failures of a batch are listed at the end, with exit code 1. A single failure is raised."""
    from tfcseg.runs.inputs import output_folders

    folders = output_folders(found, output, resume=job.resume)
    places = [*zip(found.sources, folders, strict=True)]
    contents: list[Any] = []
    failures: list[tuple[str, TfcsegError]] = []
    skipped = 0
    run_each = _run_each if crew.ray is None else partial(_run_on_ray, crew)
    for outcome in run_each(places, model, job, quiet=printing.quiet):
        logger.info("%s: %s", without_passwords(outcome.source), outcome.status, extra=outcome.to_json())
        if outcome.status == "failed" and outcome.error is not None:
            failures.append((outcome.source, outcome.error))
        skipped += outcome.status == "skipped"
        if printing.as_json and (outcome.status != "failed" or outcome.report is not None):
            contents.append(outcome.content)
        _show(outcome, is_batch=found.is_batch, quiet=printing.quiet)
    if skipped and found.is_batch and not printing.quiet:
        print_line(f"{skipped} of {len(places)} inputs were finished before and are skipped")
    if printing.as_json and (contents or found.is_batch):
        print_json(contents if found.is_batch else contents[0])
    if failures:
        if not found.is_batch:
            raise failures[0][1]
        print_line(f"{len(failures)} of {len(places)} inputs failed")
        named = ((without_passwords(source), str(error)) for source, error in failures)
        print_facts((name, error.removeprefix(f"{name}: ")) for name, error in named)
        raise typer.Exit(1)


def _run_each(places: Sequence[tuple[str, Path]], model: str, job: RunOptions, *, quiet: bool) -> Iterator[Outcome]:
    """Run the inputs one after the other, each with a bar of its own."""
    from tfcseg.runs.batch import run_input
    from tfcseg.runs.pipeline import check_model
    from tfcseg.weights.loading import ModelOnDemand

    shared = ModelOnDemand(model, job.device, allow_network=job.allow_network)
    if len(places) > 1:
        check_model(shared, job)
    for source, folder in places:
        try:
            with _listener(job, shown=not quiet) as listener:
                outcome = run_input(source, folder, shared, job, listener)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {_what_is_kept(folder)}") from None
        yield outcome


def _run_on_ray(
    crew: WorkerOptions, places: Sequence[tuple[str, Path]], model: str, job: RunOptions, *, quiet: bool
) -> Iterator[Outcome]:
    """Run the inputs on a cluster, with one bar for all of them."""
    from tfcseg.runs.batch import run_on_ray
    from tfcseg.runs.pipeline import Listener

    started_s = time.monotonic()
    done = frames = 0
    with progress(shown=not quiet) as on_progress:

        def show(more: int = 0) -> None:
            speed = (frames + more) / max(time.monotonic() - started_s, 1e-3)
            on_progress("inputs", done, len(places), f"{frames + more} frames · {speed:.1f} fps")

        show()
        try:
            for outcome in run_on_ray(places, model, job, crew, Listener(lambda frame, info: show(frame.index + 1))):
                done += 1
                frames += 0 if outcome.report is None else outcome.report.input.frames_decoded
                show()
                yield outcome
        except KeyboardInterrupt:
            raise Interrupted("interrupted; the same command with --resume continues from what is saved") from None


def _show(outcome: Outcome, *, is_batch: bool, quiet: bool) -> None:
    """Say how an input ended; thousands that were finished before are counted instead."""
    if outcome.report is not None:
        name = without_passwords(outcome.source)
        for warning in outcome.report.warnings:
            if warning != str(outcome.error):
                print_warning(f"{name}: {warning.removeprefix(f'{name}: ')}" if is_batch else warning)
        if not quiet:
            print_facts([*([("input", name)] if is_batch else []), *_summary(outcome.report, outcome.folder)])
    if outcome.status == "failed" and is_batch:
        print_error(str(outcome.error))
    if outcome.status == "skipped" and not (quiet or is_batch):
        print_line(str(outcome.error))


def _what_is_kept(folder: Path) -> str:
    frames = unfinished_frames(folder)
    if frames == 0:
        return f"nothing in {str(folder)!r} is complete yet, so --resume would start from the beginning"
    if frames is not None:
        return f"{frames} frames are saved in {str(folder)!r}; the same command with --resume continues after them"
    if folder.exists():
        return f"complete masks and rows are kept in {str(folder)!r}; incomplete videos were removed"
    return "nothing was written"


@contextmanager
def _listener(job: RunOptions, *, shown: bool) -> Iterator[Listener]:
    """A bar for the frames, with their speed, and one for each export."""
    from tfcseg.runs.pipeline import Listener

    started_s, done = time.monotonic(), 0
    with progress(shown=shown) as on_progress:

        def on_frame(frame: Any, info: Any) -> None:
            nonlocal done
            done += 1  # a resumed run begins with a later frame
            speed = done / max(time.monotonic() - started_s, 1e-3)
            name = info.source.path.name if info.source.is_on_disk else info.source.name
            wanted = info.frames_between(job.start_s, job.end_s)
            on_progress(name or info.source.name, frame.index + 1, wanted, f"{speed:.1f} fps")

        yield Listener(on_frame, on_progress)


def _summary(report: Report, folder: Path) -> Iterator[tuple[str, str]]:
    """Names and values of a finished run, for people."""
    facts, stability, sure, steady = report.input, report.stability, report.confidence, report.steady
    yield "frames", f"{facts.frames_decoded} at {facts.width}×{facts.height}"
    if facts.frames_dropped:  # late ones of a live source
        segmented = facts.frames_decoded - facts.frames_repeated
        late = facts.frames_dropped / (facts.frames_dropped + segmented)
        yield "dropped", f"{facts.frames_dropped} late frames ({percent(late, 0)}), {segmented} segmented"
    speed = f"{number(report.speed.fps)} fps end to end, {number(report.speed.model_fps)} fps model"
    yield "speed", f"{speed} ({report.options.device}, {report.options.precision})"
    if stability.label_change is None:
        yield "label change", "not measured"
    else:
        before = "" if steady is None else f", before {percent(steady.label_change)}"
        cuts = f"; {count_of(stability.cuts, 'cut')} left out" if stability.cuts else ""
        pulse = "" if stability.pulse is None else f"; pulse {stability.pulse:.2f} (1 is steady)"
        change = f"{percent(stability.label_change)} of the pixels from frame to frame"
        yield "label change", f"{change}{before}{cuts}{pulse}"
    if stability.flow_consistency is None:
        yield "flow consistency", "not measured"
    else:
        before = "" if steady is None else f", before {percent(steady.flow_consistency)}"
        yield "flow consistency", f"{percent(stability.flow_consistency)} along optical flow{before}"
    if sure.mean is not None:
        error = sure.calibration_error
        trust = "not calibrated" if error is None else f"off by {percent(error, 1)} on labelled photos"
        doubt = f"{percent(sure.unsure)} of the labels below {percent(sure.unsure_below, 0)}"
        yield "confidence", f"{percent(sure.mean)}, {doubt}; {trust}"
    if stability.updated_fraction or steady is not None:
        updated = "points between keyframes" if steady is None else "pixels"
        yield "updated", f"{percent(stability.updated_fraction)} of the {updated}"
    largest = sorted(report.classes, key=lambda entry: -entry.share)[:5]
    shares = [(each.name, each.share) for each in largest]
    if report.unlabelled:
        shares.append(("no class", report.unlabelled))
    yield "classes", ", ".join(f"{name} {percent(share, 0)}" for name, share in shares)
    if report.outputs:
        others = sorted(name for name in report.outputs.values() if not MATTE_NAME.fullmatch(name))
        mattes = (len(report.outputs) - len(others)) // 2
        names = [*others, *([f"matte_*.mp4 and .webm ({count_of(mattes, 'matte')})"] if mattes else [])]
        yield "written", f"{folder}: {', '.join(names)}"


Video = Annotated[str, typer.Argument(metavar="VIDEO", help="The video, or folder of images, that the masks are of.")]
_NOT_OF_MASKS = ("classes", "exclude", "palette", "export", "masks", "mask_names", "confidence", "unsure")


@grouped
def steady_command(
    *,
    video: Video,
    steady: SteadyOptions,
    output: Annotated[Path | None, options.output_to("Folder for the results.", "<name>_steady")] = None,
    model: options.Model = "default",
    fps: options.FrameRate = None,
    overwrite: options.Overwrite = False,
    resume: Resume = False,
    allow_network: options.AllowNetworkForVideos = False,
    printing: options.Printing,
    results: Annotated[ResultOptions, Without(*_NOT_OF_MASKS)],
    device: DeviceOptions,
) -> None:
    """Take the flicker out of the masks of any program.

    Example: tfcseg steady clip.mp4 --masks clip_masks -o clip_steady
    """
    from tfcseg.runs.inputs import Inputs
    from tfcseg.runs.outputs import default_output

    job = RunOptions(
        device=device,
        frame_rate=fps,
        results=results,
        overwrite=overwrite,
        resume=resume,
        allow_network=allow_network,
        steady=steady,
    )
    found = Inputs((video,), is_batch=False)
    run_all(found, output or default_output(video, "steady"), model, job, printing)
