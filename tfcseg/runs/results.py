"""Write a run's results frame by frame (render → write → report), and checkpoints to resume from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import class_shares
from tfcseg.drawing.rendered_videos import RenderedVideos
from tfcseg.errors import OutputError
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.inference.steadied import shown_labels
from tfcseg.labels.label_sets import NO_CLASS, LabelSet
from tfcseg.media.frames import FrameSource, Image
from tfcseg.media.masks import MaskWriter, full_palette, read_mask, write_mask
from tfcseg.media.parts import PartedVideo
from tfcseg.media.writer import Sound
from tfcseg.model.evidence import HandedOn
from tfcseg.model.options import InferenceOptions
from tfcseg.report import FrameTable, columns_for, write_json
from tfcseg.report.page import PageRecorder
from tfcseg.runs.carried_file import save_carried
from tfcseg.runs.live import LiveFrames
from tfcseg.runs.measuring import FrameMeasurer, MeasuredFrame
from tfcseg.runs.result_options import ResultOptions
from tfcseg.runs.result_plan import CARRIED_NAME, LABELS_NAME, ResultPlan
from tfcseg.runs.state import Checkpoint
from tfcseg.runs.summary import RunFacts, Summary
from tfcseg.weights.loading import LoadedModel

SAFE_EVERY_S = 5.0
"""Seconds between checkpoints: a killed run loses at most this much work, plus the interval in progress."""


class ResultWriter:
    """Writes the results of one run. ``close`` completes the files; ``abort`` drops incomplete parts of videos.

    After every part and every few seconds, a separate thread saves what is needed to resume. With a ``checkpoint`` it
    resumes itself, after ``replay`` has passed it the earlier images. Encoders cannot be saved, so incomplete parts are
    drawn and encoded again from their labels.
    """

    def __init__(self, plan: ResultPlan, started_s: float, checkpoint: Checkpoint | None = None) -> None:
        self._plan = plan
        self._options = plan.options
        self._palette = plan.labels.palette_array()
        self._started_s = started_s - (checkpoint.wall_s if checkpoint else 0.0)
        self._resumes = checkpoint.resumes + 1 if checkpoint else 0
        self._audio: str | None = None
        self._outputs: dict[str, str] = {}
        self.summary = Summary.from_json(checkpoint.summary) if checkpoint else Summary(np.zeros(len(plan.labels)))
        self.carried = plan.restore_carried(checkpoint) if checkpoint else None
        """What the next keyframe takes over from the frames written so far."""
        self.recorder = self._make_recorder(checkpoint)
        self._frames = self._saved_frames = self.summary.frames
        self._part_start = checkpoint.part_start if checkpoint else 0
        self._part_legend = checkpoint.legend if checkpoint else None
        self._saved_s = time.monotonic()
        self._is_between_groups = False
        self._measurer = FrameMeasurer(
            len(plan.labels), use_flow=plan.options.flow_consistency, unsure_below=plan.options.unsure_below
        )
        self._videos = self._make_videos(checkpoint)
        self._masks: MaskWriter | None = None
        self._sure: MaskWriter | None = None
        self._labels: MaskWriter | None = None
        self._table: FrameTable | None = None
        self._saved: Future[None] | None = None
        self._last = np.zeros((0, 0), np.uint8)
        with ExitStack() as undo:
            undo.callback(self.abort)
            self._saver = ThreadPoolExecutor(1, "tfcseg-save")
            if self._options.masks:
                self._masks = MaskWriter(plan.out.masks, self._palette, plan.mask)
                if plan.given is None:
                    write_json(plan.out.classes_json, _class_list(plan.labels, self._options))
                elif 0 in plan.given.classes.names:
                    write_json(plan.out.classes_json, _given_classes(plan))
            if plan.keeps_labels:
                self._labels = MaskWriter(plan.state.labels, self._palette)
            if self._options.confidence:
                self._sure = MaskWriter(plan.out.confidence, path_of=plan.mask)
            if self._options.frames_csv:
                columns = columns_for(has_sources=bool(plan.info.names), has_before=plan.given is not None)
                self._table = FrameTable(plan.out.frames_csv, checkpoint.rows_bytes if checkpoint else 0, columns)
            undo.pop_all()

    @property
    def part_frames(self) -> int:
        """Frames between two checkpoints; each must begin with an interval."""
        return self._plan.part_frames

    @property
    def saves_between_parts(self) -> bool:
        """Whether a run can also resume from the end of a group of frames."""
        return self._plan.state.is_resumable and self._plan.has_groups

    def replay(self, index: int, image: Image) -> None:
        """Take an image from before the checkpoint: the last one is compared with the next, some are drawn again."""
        if index == self.summary.frames - 1:
            self._last = read_mask(self._plan.state.pictures(self.summary.frames) / LABELS_NAME)
            given = [] if self._plan.given is None else [shown_labels(self._plan.given, index, image)]
            self._measurer.remember(image, [self._last, *given])
        if index >= self._part_start and self._options.videos:
            labels = read_mask(self._plan.kept_labels(index))
            self._videos.write(image, labels, class_shares(labels, len(self._palette)))

    def write(self, frame: SegmentedFrame) -> None:
        """Render and write one frame; OutputError if something cannot be written."""
        if frame.index != self._frames:
            raise OutputError(f"got frame {frame.index} instead of frame {self._frames}")
        self._is_between_groups = False
        if self._options.unsure is not None:
            frame = frame.without_unsure(self._options.unsure)
        shares = self._measurer.add(frame)
        if self._masks and frame.steadied is None:
            self._masks.write(frame.index, frame.labels)
        elif self._masks and frame.steadied and frame.steadied.mask is not None:
            self._masks.write_like(frame.index, frame.steadied.mask, frame.steadied.form)
        if self._labels:
            self._labels.write(frame.index, frame.labels)
        if self._sure and (confidence := frame.confidence) is not None:
            self._sure.write(frame.index, confidence)
        self._videos.write(frame.image, frame.labels, shares)
        self._frames += 1
        self.carried = frame.carried
        if self._frames % self._plan.part_frames:
            self._record(self._measurer.finished())
        else:
            self._end_part()
        self._is_between_groups = frame.ends_group
        if time.monotonic() - self._saved_s > SAFE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Start saving a point to resume from, if the run can be resumed; ``abort`` waits for it."""
        if self._is_between_groups and self._frames > self._saved_frames and self.saves_between_parts:
            self._record(self._measurer.finished(0))
            self._wait_until_saved()
            self._begin_to_save(lambda: lambda: None)

    def close(self) -> None:
        """Complete all files and give the videos their final names."""
        if self._frames > self._part_start:
            self._end_part()
        if self.recorder:
            self.recorder.drawn_moments()  # meanwhile the encoder finishes
            self.recorder.drawn_doubts()
        self._wait_until_saved()
        out = self._plan.out
        if self._masks:
            self._masks.close()
            self._outputs["masks"] = out.masks.name
            if self._plan.given is None or 0 in self._plan.given.classes.names:
                self._outputs["classes"] = out.classes_json.name
        if self._sure:
            self._sure.close()
            self._outputs["confidence"] = out.confidence.name
        if self._table:
            self._table.close()
            self._outputs["frames_csv"] = out.frames_csv.name
        self._audio = self._videos.finish(self._plan.part_frames)
        self._outputs |= {name: getattr(out, name).name for name in self._options.videos}
        if self._options.page:
            self._outputs["page"] = out.report_html.name
        if self._options.report:
            self._outputs["report"] = out.report_json.name

    def facts(
        self,
        model: LoadedModel,
        options: InferenceOptions,
        frames: FrameSource,
        live: LiveFrames | None = None,
        compile_s: float | None = None,
    ) -> RunFacts:
        """Facts for the report besides the totals; valid after ``close``."""
        lost = () if live is None or live.lost is None else (str(live.lost),)
        return RunFacts(
            model,
            self._plan.labels,
            options,
            self._plan.info,
            frames.frames_decoded if live is None else self._frames,
            (*frames.warnings, *lost),
            self._measurer.flow_name,
            self._audio,
            self._plan.range_s,
            self._outputs,
            self._wall_s(),
            self._resumes,
            self._options.unsure_below,
            compile_s,
            0 if live is None else live.dropped,
            self._plan.given,
        )

    def stop(self) -> None:
        """Make a ``write`` in another thread fail soon; ``abort`` follows."""
        self._videos.stop()

    def abort(self) -> None:
        """Drop incomplete files; complete masks, rows and parts stay. After ``close`` there is nothing to drop."""
        self._measurer.close()
        self._saver.shutdown()
        self._videos.abort()
        with suppress(OutputError):  # the error that is already being raised is the cause
            if self._masks:
                self._masks.close()
        with suppress(OutputError):
            if self._sure:
                self._sure.close()
        with suppress(OutputError):
            if self._labels:
                self._labels.close()
        with suppress(OutputError):
            if self._table:
                self._table.close()

    def _record(self, measured: Iterable[MeasuredFrame]) -> None:
        """Write the rows of frames that have been measured."""
        for frame, shares, row in measured:
            self.summary.add(row, shares)
            if frame.steadied is not None:
                self.summary.filled += frame.steadied.is_filled
                self.summary.contrast.add(frame.steadied.contrast)
            if self.recorder:
                self.recorder.add(row, shares, frame.image, frame.labels, frame.confidence_grid)
            if self._table:
                names = self._plan.info.names
                self._table.write(replace(row, source=names[row.frame]) if names else row)
            self._last = frame.labels

    def _wall_s(self) -> float:
        """Seconds of this run so far, including the runs that it resumes."""
        return time.perf_counter() - self._started_s

    def _end_part(self) -> None:
        """Start new parts of the videos; let the saver complete the old ones and then write a checkpoint."""
        self._videos.end_input()
        self._record(self._measurer.finished(0))
        self._wait_until_saved()
        self._part_start, self._part_legend = self._frames, self._videos.legend_state()
        self._begin_to_save(self._videos.end_part)

    def _begin_to_save(self, end_parts: Callable[[], Callable[[], None]]) -> None:
        """Let the saver complete what ``end_parts`` ends, then write a checkpoint of everything recorded."""
        checkpoint = Checkpoint(
            frames=self.summary.frames,
            part_start=self._part_start,
            rows_bytes=self._table.size_bytes if self._table else 0,
            wall_s=self._wall_s(),
            resumes=self._resumes,
            summary=self.summary.to_json(),
            legend=self._part_legend,
        )
        self._saved_frames, self._saved_s = self._frames, time.monotonic()
        if self.recorder and self._plan.state.is_resumable:
            # In a thread that no signal interrupts: half-written zip files print complaints on stderr.
            self._saver.submit(self.recorder.save, self._plan.state.make_pictures(self.summary.frames)).result()
        writers = (self._masks, self._sure, self._labels)
        masks = [future for writer in writers if writer for future in writer.pending()]
        save = partial(self._save, checkpoint, end_parts(), masks, self._last, self.carried)
        self._saved = self._saver.submit(save)

    def _save(
        self,
        checkpoint: Checkpoint,
        complete_parts: Callable[[], None],
        masks: Sequence[Future[None]],
        labels: NDArray[np.uint8],
        carried: HandedOn | None,
    ) -> None:
        """Record ``checkpoint`` once everything before it is on disk.

        (H, W) ``labels`` are those of its last frame; ``carried`` is the carry-over for the next keyframe.

        Flushing every mask to disk would be slow. Instead masks are checked when the run resumes.
        """
        complete_parts()
        for mask in masks:
            mask.result()
        state = self._plan.state
        if not state.is_resumable:
            return
        if self._table:
            self._table.sync()
        if carried is not None:
            save_carried(state.make_pictures(checkpoint.frames) / CARRIED_NAME, carried)
        write_mask(state.make_pictures(checkpoint.frames) / LABELS_NAME, labels, full_palette(self._palette))
        state.add(checkpoint)
        if not self._options.formats:  # those of the previous part may be needed, too
            state.drop_labels(checkpoint.part_start - self._plan.part_frames)

    def _wait_until_saved(self) -> None:
        saved, self._saved = self._saved, None
        if saved is not None:
            saved.result()

    def _make_recorder(self, checkpoint: Checkpoint | None) -> PageRecorder | None:
        if not self._options.page:
            return None
        if checkpoint is not None:
            return self._plan.restore_recorder(checkpoint)
        return PageRecorder(self._palette, self._plan.info.frame_rate, self._options.unsure_below)

    def _make_videos(self, checkpoint: Checkpoint | None) -> RenderedVideos:
        plan, options = self._plan, self._options
        sound = None if plan.info.audio is None else Sound(plan.info.source, *plan.range_s)
        videos = {
            name: PartedVideo(
                getattr(plan.out, name),
                partial(plan.state.part, name),
                plan.info.frame_rate,
                sound,
                self._part_start,
                pixel_aspect=plan.info.pixel_aspect,
            )
            for name in options.videos
        }
        visible = options.visible(plan.labels)
        always = () if visible is None else np.flatnonzero(visible).tolist()
        legend = Legend(plan.labels, (plan.info.height, plan.info.width), always) if options.legend else None
        if legend is not None and checkpoint is not None and checkpoint.legend is not None:
            legend.restore(checkpoint.legend)
        return RenderedVideos(videos, self._palette, alpha=options.alpha, visible=visible, legend=legend)


def _given_classes(plan: ResultPlan) -> list[dict[str, Any]]:
    """What the values of masks meant when they were given; colours are those that they are drawn with."""
    assert plan.given is not None
    palette = plan.labels.palette
    named = sorted(plan.given.classes.names.items())
    return [{"index": index, "name": name, "colour": palette[index % len(palette)]} for index, name in named]


def _class_list(labels: LabelSet, options: ResultOptions) -> list[dict[str, Any]]:
    """Index, name and RGB colour of each class, and of pixels without one."""
    entries = [*zip(labels.names, labels.palette, strict=True)]
    classes = [{"index": index, "name": name, "colour": colour} for index, (name, colour) in enumerate(entries)]
    nothing = {"index": NO_CLASS, "name": "no class", "colour": (0, 0, 0)}
    return classes if options.unsure is None else [*classes, nothing]
