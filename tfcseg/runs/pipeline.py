"""Process a whole video: decode → preprocess → model → label → render → write → report."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
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
from tfcseg.inference.steadied import shown_classes, steadied_frames
from tfcseg.inference.steadying import ahead_for, frames_before
from tfcseg.interrupts import noted_interrupts
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Frame, FrameSource, VideoInfo, most_waiting, prefetch_frames
from tfcseg.media.mask_folder import MaskFolder
from tfcseg.media.reader import open_frames
from tfcseg.media.source import Given, Source
from tfcseg.media.streams import NewestFrames, without_gaps
from tfcseg.media.writer import part_length
from tfcseg.model.evidence import CarryOver
from tfcseg.model.options import InferenceOptions
from tfcseg.options import OnProgress, sort_options
from tfcseg.report.page import write_page
from tfcseg.report.schema import Report
from tfcseg.runs.exporting import check_export, export_results
from tfcseg.runs.inputs import find_inputs, output_folders
from tfcseg.runs.options import ResultOptions, RunOptions
from tfcseg.runs.outputs import OutputDir, claimed_output, default_output
from tfcseg.runs.result_plan import ResultPlan, check_mask_names
from tfcseg.runs.results import ResultWriter
from tfcseg.runs.resuming import go_on, identify, refuse_finished, refuse_other_run
from tfcseg.runs.state import Identity, RunState, unfinished_frames
from tfcseg.runs.summary import build_report
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel
from tfcseg.weights.on_demand import Known, ModelOnDemand, on_demand

_Known = TypeVar("_Known", bound=Known)

OnFrame = Callable[[SegmentedFrame, VideoInfo], None]
Segment = Callable[
    [Iterator[Frame], IntervalNetwork, "CarryOver | None", int, VideoInfo], Generator[SegmentedFrame, None, None]
]
"""Segments frames as `segment_frames` does; the last argument describes their source."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Follows a run."""

    on_frame: OnFrame = lambda frame, info: None
    """Called with every frame and facts about its source."""
    on_export: OnProgress = lambda task, done, total: None
    """Called while files are written after the last frame."""


def segment_here(
    frames: Iterator[Frame], network: IntervalNetwork, before: CarryOver | None, part_frames: int, info: VideoInfo
) -> Generator[SegmentedFrame, None, None]:
    """Segment frames in this process."""
    return segment_frames(frames, network, before, part_frames)


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
    skip_finished: bool = False,
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
    failure, if nothing is left to resume. With ``skip_finished``, a finished run of the same settings raises it before
    the model is loaded; one of other settings raises OutputError, unless ``overwrite`` replaces it.
    """
    inference, written = sort_options("run", options, InferenceOptions, ResultOptions)
    wanted = RunOptions(
        inference=InferenceOptions(**inference),
        device=DeviceOptions(device, precision),
        start_s=start_s,
        end_s=end_s,
        frame_rate=frame_rate,
        results=replace(results or ResultOptions(), **written),
        overwrite=overwrite,
        resume=resume,
        skip_finished=skip_finished,
        allow_network=allow_network,
    )
    listener = Listener(on_frame)
    if isinstance(source, str | Path | int | Source):
        with in_python_words():
            return run_video(source, output, model, wanted, listener)
    return _run_all([Source.of(each).given for each in source], output, model, wanted, listener)


def _run_all(
    names: Sequence[str],
    output: str | Path | None,
    model: str | Path | LoadedModel,
    options: RunOptions,
    listener: Listener,
) -> dict[str, Report]:
    """Run every source that ``names`` stand for; BatchError at the end if some failed."""
    found = replace(find_inputs(names), is_batch=True)
    shared = on_demand(model, options.device, allow_network=options.allow_network)
    check_model(shared, options)
    reports: dict[str, Report] = {}
    failures: dict[str, TfcsegError] = {}
    folders = output_folders(
        found, Path(output) if output is not None else None, resume=options.resume or options.skip_finished
    )
    for source, folder in zip(found.sources, folders, strict=True):
        try:
            with in_python_words():
                reports[source] = run_video(source, folder, shared, options, listener)
        except FinishedError:
            continue
        except TfcsegError as error:
            failures[source] = error
    if failures:
        raise BatchError(failures, reports)
    return reports


def run_video(
    source: Given,
    output: str | Path | None,
    model: str | Path | LoadedModel | ModelOnDemand,
    options: RunOptions,
    listener: Listener = Listener(),
    *,
    segment: Segment = segment_here,
) -> Report:
    """Like `run`, with all options in one object; ``segment`` segments the frames."""
    started_s = time.perf_counter()
    source = Source.of(source, allow_network=options.allow_network, live=options.inference.latency == "low")
    options = options.for_source(source)
    check_export(options.results, source)
    folder = Path(output) if output is not None else default_output(source)
    shared = on_demand(model, options.device, allow_network=options.allow_network)
    if options.skip_finished:
        _refuse_finished(OutputDir(folder), source, shared, options)
    with (
        claimed_output(folder, inputs=options.places(source), overwrite=options.overwrite or options.resume) as out,
        _prepared(out, source, shared, options) as job,
    ):
        if not options.resume:
            out.remove_results()  # only once it is certain that new ones will be written
        is_new = RunState(out.state).identity() is None and not out.results()
        try:
            report, lost = _run_in(out, replace(job, segment=segment), options, listener, started_s)
        except BaseException:
            if is_new and not out.holds_frames():
                out.remove_results()
            elif RunState(out.state).identity() is None:  # it could not be resumed
                RunState(out.state).clear()
            raise
    if lost is not None:
        lost.report = report
        raise lost
    return report


def check_model(model: ModelOnDemand, options: RunOptions) -> None:
    """Load what runs need of the model, so that an unusable one is reported once and not for every input."""
    _ = model.known if options.skip_finished else model.loaded


def _coloured(model: _Known, options: RunOptions) -> _Known:
    """``model`` with the colours that were asked for."""
    return replace(model, card=replace(model.card, labels=options.results.coloured(model.labels)))


def _refuse_finished(out: OutputDir, source: Source, model: ModelOnDemand, options: RunOptions) -> None:
    """FinishedError if the same run is finished; OutputError if another one is that must not be replaced."""
    if not os.path.lexists(out.path):
        return
    try:
        refuse_finished(out, identify(source, _coloured(model.known, options), options))
    except OutputError:
        if not options.overwrite:
            raise


@dataclass(frozen=True, slots=True)
class _Job:
    """Everything a run needs; checked before any result is touched."""

    loaded: LoadedModel
    network: IntervalNetwork
    identity: Identity | None
    frames: FrameSource
    masks: MaskFolder | None
    """Masks to make steady."""
    probabilities: Path | None
    segment: Segment = segment_here

    @property
    def labels(self) -> LabelSet:
        return self.loaded.labels if self.masks is None else shown_classes(self.masks)

    def segmented(
        self, frames: Iterator[Frame], before: Iterable[Frame], writer: ResultWriter
    ) -> Iterator[SegmentedFrame]:
        """Segment ``frames``; ``before`` are the last frames that the writer already has."""
        if self.masks is None:
            info = self.frames.info
            return self.segment(frames, self.network, writer.carried, writer.part_frames, info)
        return steadied_frames(
            chain(before, _followed(frames, writer)),
            self.masks,
            self.network,
            probabilities=self.probabilities,
            first=writer.summary.frames,
            ahead=ahead_for(self._image_bytes),
        )

    @property
    def frames_before(self) -> int:
        """Number of finished frames that a resumed run needs again."""
        return 0 if self.masks is None else frames_before(self._image_bytes)

    @property
    def _image_bytes(self) -> int:
        return self.frames.info.height * self.frames.info.width * 3


@contextmanager
def _prepared(out: OutputDir, source: Source, model: ModelOnDemand, options: RunOptions) -> Iterator[_Job]:
    """Check all options against the model, the earlier run and the source, which is opened."""
    loaded = _coloured(model.loaded, options)
    network = IntervalNetwork(loaded, options.inference_of(loaded))
    options.results.visible(loaded.labels)  # report unknown classes before opening anything
    identity = identify(source, loaded, options)
    if options.resume:
        refuse_finished(out, identity)
        refuse_other_run(out, identity)
    with open_frames(source, **options.decoding) as frames:
        if options.frame_rate not in (None, frames.info.frame_rate):
            raise UsageError(f"{source.name}: an animation has its own frame rate; --fps is for folders of images")
        check_mask_names(options.results, frames.info)
        check_names(options.results.formats, frames.info.names)
        masks = None if options.steady is None else options.steady.open(frames.info)
        probabilities = None if options.steady is None else options.steady.probabilities
        yield _Job(loaded, network, identity, frames, masks, probabilities=probabilities)


def _run_in(
    out: OutputDir, job: _Job, options: RunOptions, listener: Listener, started_s: float
) -> tuple[Report, LostConnection | None]:
    """The report once everything is written, and how a live source was lost, if it was."""
    loaded, network, frames = job.loaded, job.network, job.frames
    state, length = RunState(out.state), part_length(network.frames_at_once)
    plan = ResultPlan(
        options=options.results,
        out=out,
        state=state,
        info=frames.info,
        labels=job.labels,
        range_s=options.range_s,
        part_frames=length,
        has_groups=network.options.latency == "normal" and job.segment is segment_here,
        carries=network.options.carries and job.masks is None,
        given=job.masks,
    )
    writer = ResultWriter(plan, started_s, go_on(plan, job.identity, resume=options.resume))
    with _advice(out):
        live = _process(job, writer, listener.on_frame)
        exported = export_results(plan, writer.summary.frames, options, listener.on_export)
        report = build_report(writer, loaded, network.options, frames, live=live, exported=exported, run=job.identity)
        if writer.recorder:
            write_page(out.report_html, report, writer.recorder, plan.mask_names(writer.summary.frames))
        if options.results.report:
            write_json(out.report_json, report)
    state.finish(None if options.results.report else job.identity)
    return report, None if live is None else live.lost


@contextmanager
def _advice(out: OutputDir) -> Iterator[None]:
    """Add to an error that the run can be resumed, if it can."""
    try:
        yield
    except TfcsegError as error:
        frames = unfinished_frames(out.path)
        if not frames:
            raise
        raise type(error)(f"{error}; --resume continues after the {frames} saved frames") from error


def _process(job: _Job, writer: ResultWriter, on_frame: OnFrame) -> NewestFrames | None:
    """Pass all frames through the network to the ``writer``, which completes its files or drops unfinished ones.

    Returns the live source with its losses; None for other sources.
    """
    frames = job.frames
    with ExitStack() as stack:
        stack.callback(writer.abort)  # after a complete close there is nothing left to abort
        live = None
        if frames.info.source.is_live:
            live = stack.enter_context(closing(NewestFrames(frames, is_run=True)))
            stack.enter_context(noted_interrupts(frames.stop, keeps_ignored=True))
            read = without_gaps(live, float(frames.info.frame_rate))
        else:
            read = stack.enter_context(closing(prefetch_frames(frames)))
        before = _skip(read, writer, frames.info, job.frames_before)
        thread = ThreadPoolExecutor(1, "tfcseg-write")
        stack.callback(thread.shutdown, cancel_futures=True)
        stack.callback(writer.stop)
        segmented = stack.enter_context(closing(job.segmented(read, before, writer)))  # type: ignore[type-var]
        _write_all(segmented, writer, thread, frames.info, on_frame)
        writer.close()
    return live


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


def _followed(frames: Iterable[Frame], writer: ResultWriter) -> Iterator[Frame]:
    """``frames``, which the ``writer`` may look at before their labels are known."""
    for frame in frames:
        writer.follow(frame)
        yield frame


def _write_all(
    frames: Iterator[SegmentedFrame],
    writer: ResultWriter,
    thread: ThreadPoolExecutor,
    info: VideoInfo,
    on_frame: OnFrame,
) -> None:
    """Render and write in a second thread, a few frames behind."""
    pending: deque[Future[None]] = deque()
    limit = most_waiting(info.height, info.width)
    frame = None
    try:
        for frame in frames:
            pending.append(thread.submit(writer.write, frame))
            on_frame(frame, info)
            while len(pending) > limit:
                pending.popleft().result()
        for future in pending:
            future.result()
    except OutputError:
        raise  # nothing more can be written
    except BaseException:
        if frame is not None and writer.saves_between_parts:
            _save_what_is_computed(frame, frames, writer, thread)
        raise


def _save_what_is_computed(
    last: SegmentedFrame, frames: Iterator[SegmentedFrame], writer: ResultWriter, thread: ThreadPoolExecutor
) -> None:
    """Write the frames of a group up to ``last``, and save a point to resume from."""
    while not last.ends_group and (rest := next(frames, None)) is not None:
        last = rest
        thread.submit(writer.write, last)
    with suppress(TfcsegError):  # the error that is already being raised is the cause
        thread.submit(writer.save).result()
