"""Process a whole video: decode → preprocess → model → label → render → write → report."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar, overload

from tfcseg.errors import (
    BatchError,
    FinishedError,
    InputError,
    LostConnection,
    OutputError,
    TfcsegError,
    UsageError,
    in_python_words,
)
from tfcseg.exports.export import check_names
from tfcseg.files import write_json
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.segment import segment_frames
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.inference.steadied import steadied_frames
from tfcseg.inference.steadying import ahead_for, frames_before
from tfcseg.interrupts import noted_interrupts
from tfcseg.media.frames import Frame, VideoInfo, most_waiting, prefetch_frames
from tfcseg.media.reader import open_frames
from tfcseg.media.source import Given, Source
from tfcseg.media.streams import NewestFrames, without_gaps
from tfcseg.model.options import InferenceOptions
from tfcseg.options import OnProgress, sort_options
from tfcseg.report.page import write_page
from tfcseg.report.schema import Report
from tfcseg.runs.exporting import check_export, export_results
from tfcseg.runs.inputs import find_inputs, output_folders
from tfcseg.runs.job import Job, check_mask_names
from tfcseg.runs.options import ResultOptions, RunOptions, SteadyOptions
from tfcseg.runs.outputs import OutputDir, claimed_output, default_output
from tfcseg.runs.results import FrameMeasurer, ResultWriter
from tfcseg.runs.resuming import identify, refuse_other_run
from tfcseg.runs.sections import segment_sections
from tfcseg.runs.state import Checkpoint, RunState, unfinished_frames
from tfcseg.runs.summary import as_drawn, build_report
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import Known, LoadedModel, ModelOnDemand
from tfcseg.workers import Workers

logger = logging.getLogger(__name__)
_Known = TypeVar("_Known", bound=Known)

OnFrame = Callable[[SegmentedFrame, VideoInfo], None]


@dataclass(frozen=True, slots=True)
class Listener:
    """Follows a run."""

    on_frame: OnFrame = lambda frame, info: None  # called with every frame and facts about its source
    on_export: OnProgress = lambda task, done, total: None
    """Called while files are written after the last frame."""


@overload
def run(
    source: Given, output: str | Path | None = None, model: str | Path | LoadedModel = "default", **options: Any
) -> Report: ...


@overload
def run(
    source: Iterable[Given],
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    **options: Any,
) -> dict[str, Report]: ...


def run(
    source: Given | Iterable[Given],
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    frame_rate: Fraction | None = None,
    device: str = "auto",
    precision: str = "auto",
    results: ResultOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
    allow_network: bool = False,
    on_frame: OnFrame = lambda frame, info: None,
    **options: Any,
) -> Report | dict[str, Report]:
    """Segment a video, a folder of frames or stdin (``-``), write the results and return the report.

    Several sources are processed one after the other, each into its own folder; returns their reports by source. If any
    fails, BatchError is raised after the others.

    output: folder, by default ``<stem>_tfcseg`` in the current one. ``options`` are fields of `InferenceOptions` and
    `ResultOptions`, such as ``mode="image"`` and ``classes=["person"]``; ``results`` passes the latter as one object.
    ``frame_rate`` is for folders of images. ``allow_network`` permits addresses. A camera (its number) or a live
    address is read until ``end_s``, Ctrl-C or its end, which raises LostConnection when all results are written.

    Any failure raises a TfcsegError with a one-line message. Videos and reports are then complete or absent, masks and
    rows of finished frames stay, and the same call with ``resume`` continues from there. FinishedError, which is not a
    failure, if nothing is left to resume; the model is not loaded then.
    """
    inference, written = sort_options(run, options, InferenceOptions, ResultOptions)
    wanted = RunOptions(
        inference=InferenceOptions(**inference),
        device=DeviceOptions(device, precision),
        start_s=start_s,
        end_s=end_s,
        frame_rate=frame_rate,
        results=replace(results or ResultOptions(), **written),
        overwrite=overwrite,
        resume=resume,
        allow_network=allow_network,
    )
    with in_python_words():
        if isinstance(source, str | Path | int | Source):
            return run_video(source, output, model, wanted, Listener(on_frame))
        if not isinstance(source, Iterable):
            raise UsageError(f"source is {type(source).__name__}; give paths, addresses or the number of a camera")
        shared = ModelOnDemand(model, wanted.device, allow_network=allow_network)
        return _run_all(source, output, shared, wanted, on_frame)


def _run_all(
    sources: Iterable[Given],
    output: str | Path | None,
    model: ModelOnDemand,
    options: RunOptions,
    on_frame: OnFrame,
) -> dict[str, Report]:
    """Run every source that the names of ``sources`` stand for; BatchError at the end if some failed."""
    found = replace(find_inputs(Source.of(each).given for each in sources), is_batch=True)
    check_model(model, options)
    reports: dict[str, Report] = {}
    failures: dict[str, TfcsegError] = {}
    base = None if output is None else Path(output)
    folders = output_folders(found, base, resume=options.resume)
    for source, folder in zip(found.sources, folders, strict=True):
        try:
            with in_python_words():
                reports[source] = run_video(source, folder, model, options, Listener(on_frame))
        except FinishedError:
            continue
        except TfcsegError as error:
            failures[source] = error
    if failures:
        raise BatchError(failures, reports)
    return reports


def steady(
    source: Given,
    masks: str | Path,
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    *,
    frame_rate: Fraction | None = None,
    device: str = "auto",
    precision: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    allow_network: bool = False,
    on_frame: OnFrame = lambda frame, info: None,
    **options: Any,
) -> Report:
    """Steady the masks of a video, one PNG per frame in the folder ``masks``, and write what `tfcseg.run` writes.

    output: folder, by default ``<stem>_steady`` in the current one. ``options`` are fields of `SteadyOptions` and
    `ResultOptions`, such as ``void=0`` and ``overlay=False``. ``model`` is the one whose features are compared.
    Failures and ``resume`` are as in `tfcseg.run`.
    """
    steadied, written = sort_options(steady, options, SteadyOptions, ResultOptions)
    wanted = RunOptions(
        device=DeviceOptions(device, precision),
        frame_rate=frame_rate,
        results=ResultOptions(**written),
        overwrite=overwrite,
        resume=resume,
        allow_network=allow_network,
        steady=replace(SteadyOptions(**steadied), masks=Path(masks)),
    )
    with in_python_words():
        return run_video(source, output or default_output(source, "steady"), model, wanted, Listener(on_frame))


def run_video(
    source: Given,
    output: str | Path | None,
    model: str | Path | LoadedModel | ModelOnDemand,
    options: RunOptions,
    listener: Listener = Listener(),
    *,
    crew: Workers[Any] | None = None,
) -> Report:
    """Like `run`, with all options in one object; the workers of ``crew``, if there are any, segment the frames."""
    started_s = time.perf_counter()
    source = Source.of(source, allow_network=options.allow_network, live=options.inference.latency == "low")
    options = options.for_source(source)
    check_export(options.results, source)
    folder = Path(output) if output is not None else default_output(source)
    if not isinstance(model, ModelOnDemand):
        model = ModelOnDemand(model, options.device, allow_network=options.allow_network)
    if model.known_at_once is not None:  # values first, then what is in the output folder, unless that takes seconds
        _checked(model.known_at_once, options)
    with (
        claimed_output(folder, inputs=options.places(source), overwrite=options.overwrite or options.resume) as out,
        _prepared(out, source, model, options, is_shared=crew is not None) as job,
    ):
        if not options.resume:
            out.remove_results()  # only once it is certain that new ones will be written
        is_new = job.state.identity() is None and not out.results()
        try:
            report, lost = _run_job(job, listener, started_s, crew)
        except BaseException:
            if is_new and not out.holds_frames():
                out.remove_results()
            elif job.state.identity() is None:  # it could not be resumed
                job.state.clear()
            raise
    if lost is not None:
        lost.report = report
        raise lost
    return report


def check_model(model: ModelOnDemand, options: RunOptions) -> None:
    """Load what runs need of the model, so that an unusable one is reported once and not for every input."""
    _ = model.known if options.resume else model.loaded


def _coloured(model: _Known, options: RunOptions) -> _Known:
    return replace(model, card=replace(model.card, labels=options.results.coloured(model.labels)))


def _checked(model: _Known, options: RunOptions) -> tuple[_Known, InferenceOptions]:
    """``model`` in the colours of the run, and the complete options of inference; UsageError for wrong values."""
    coloured = _coloured(model, options)
    options.results.visible(coloured.labels)
    return coloured, options.inference_of(coloured)


@contextmanager
def _prepared(
    out: OutputDir, source: Source, model: ModelOnDemand, options: RunOptions, *, is_shared: bool
) -> Iterator[Job]:
    """Check all options against the model, the earlier run and the source, which is opened."""
    if options.resume:
        refuse_other_run(out, identify(source, _coloured(model.known, options), options))
    loaded, inference = _checked(model.loaded, options)
    network = IntervalNetwork(loaded, inference)
    with open_frames(source, **options.decoding) as frames:
        if options.frame_rate not in (None, frames.info.frame_rate):
            raise UsageError(f"{source.name}: an animation has its own frame rate; --fps is for folders of images")
        check_mask_names(options.results, frames.info)
        check_names(options.results.formats, frames.info.names)
        yield Job(
            run=options,
            out=out,
            state=RunState(out.state),
            model=loaded,
            network=network,
            identity=identify(source, loaded, options),
            frames=frames,
            given=None if options.steady is None else options.steady.open(frames.info),
            is_shared=is_shared,
        )


def _run_job(
    job: Job, listener: Listener, started_s: float, crew: Workers[Any] | None
) -> tuple[Report, LostConnection | None]:
    """The report once everything is written, and how a live source was lost, if it was."""
    writer = ResultWriter(job, started_s, _checkpoint(job))
    try:
        live = _process(job, writer, listener.on_frame, crew)
        exported = export_results(job, writer.summary.frames, listener.on_export)
        report = build_report(job, writer, live, exported)
        if writer.recorder:
            shown = report if job.given is None else as_drawn(report, job.given)
            write_page(job.out.report_html, shown, writer.recorder, job.mask_names(writer.summary.frames))
        if job.options.report:
            write_json(job.out.report_json, report)
    except TfcsegError as error:
        frames = unfinished_frames(job.out.path)
        if not frames:
            raise
        raise type(error)(f"{error}; --resume continues after the {frames} saved frames") from error
    job.state.finish(None if job.options.report or not job.out.results() else job.identity)
    return report, None if live is None else live.lost


def _checkpoint(job: Job) -> Checkpoint | None:
    """Prepare the state folder; returns the checkpoint to resume from, None to start with the first frame."""
    if not job.run.resume or job.state.identity() is None:
        job.state.begin(job.identity)
        return None
    checkpoint = job.state.go_on(job.is_intact)
    frames = checkpoint.frames if checkpoint else 0
    logger.info("resumed after %d frames", frames, extra={"output": job.out.path, "frames": frames})
    return checkpoint


def _process(job: Job, writer: ResultWriter, on_frame: OnFrame, crew: Workers[Any] | None) -> NewestFrames | None:
    """Pass all frames through the network to the ``writer``, which completes its files or drops unfinished ones.
    Returns the live source with its losses; None for other sources."""
    frames = job.frames
    with ExitStack() as stack:
        stack.callback(writer.abort)  # after a complete close there is nothing left to abort
        live = None
        if job.info.source.is_live:
            live = stack.enter_context(closing(NewestFrames(frames, is_run=True)))
            stack.enter_context(noted_interrupts(frames.stop, keeps_ignored=True))
            read = without_gaps(live, float(job.info.frame_rate))
        else:
            read = stack.enter_context(closing(prefetch_frames(frames)))
        segmented = _segmented(job, read, writer, crew)
        thread = ThreadPoolExecutor(1, "tfcseg-write")
        stack.callback(thread.shutdown, cancel_futures=True)
        stack.callback(writer.videos.stop)
        stack.enter_context(closing(segmented))  # type: ignore[type-var]  # a generator
        _write_all(segmented, job, writer, thread, on_frame)
        writer.close()
    return live


def _segmented(
    job: Job, frames: Iterator[Frame], writer: ResultWriter, crew: Workers[Any] | None
) -> Iterator[SegmentedFrame]:
    """Segment ``frames`` from where the ``writer`` resumes, or steady their masks."""
    image_bytes = job.info.height * job.info.width * 3
    before = _skip(frames, writer, job.info, 0 if job.given is None else frames_before(image_bytes))
    if job.given is not None:
        return steadied_frames(
            chain(before, _followed(frames, writer.measurer)),
            job.given,
            job.network,
            probabilities=None if job.run.steady is None else job.run.steady.probabilities,
            first=writer.summary.frames,
            ahead=ahead_for(image_bytes),
        )
    if crew is not None:
        return segment_sections(frames, job, crew)
    return segment_frames(frames, job.network, writer.carried, writer.part_frames)


def _skip(frames: Iterator[Frame], writer: ResultWriter, info: VideoInfo, keep: int) -> Iterable[Frame]:
    """Read the frames that were already written, up to where the run resumes: all must be decoded to get the same
    frames. Returns the last ``keep`` of them.
    """
    kept: deque[Frame] = deque(maxlen=keep)
    done = writer.summary.frames
    read = 0
    for frame in islice(frames, done):
        writer.replay(frame.index, frame.image)
        kept.append(frame)
        read += 1
    if read < done:
        raise InputError(
            f"{info.path}: ends before frame {done}, which the earlier run has read; use --overwrite to start again"
        )
    return kept


def _followed(frames: Iterable[Frame], measurer: FrameMeasurer) -> Iterator[Frame]:
    """``frames``, whose motion is measured before their labels are known."""
    for frame in frames:
        measurer.follow(frame)
        yield frame


def _write_all(
    frames: Iterator[SegmentedFrame], job: Job, writer: ResultWriter, thread: ThreadPoolExecutor, on_frame: OnFrame
) -> None:
    """Render and write in a second thread, a few frames behind."""
    pending: deque[Future[None]] = deque()
    limit = most_waiting(job.info.height, job.info.width)
    frame = None
    try:
        for frame in frames:
            pending.append(thread.submit(writer.write, frame))
            on_frame(frame, job.info)
            while len(pending) > limit:
                pending.popleft().result()
        for future in pending:
            future.result()
    except OutputError:
        raise  # nothing more can be written
    except BaseException:
        if frame is not None and job.saves_between_parts:
            # Write the rest of the group, and save a point to resume from.
            while not frame.ends_group and (rest := next(frames, None)) is not None:
                frame = rest
                thread.submit(writer.write, frame)
            with suppress(TfcsegError):  # the error that is already being raised is the cause
                thread.submit(writer.save).result()
        raise
