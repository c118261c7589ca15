"""What a run writes: render → write → report, frame by frame, and checkpoints from which it can go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import Legend
from tfcseg.drawing.rendered_videos import RenderedVideos
from tfcseg.errors import OutputError
from tfcseg.inference.options import InferenceOptions
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.media.frames import Image
from tfcseg.media.masks import MaskWriter, full_palette, read_mask, write_mask
from tfcseg.media.parts import PartedVideo
from tfcseg.media.writer import Sound
from tfcseg.model.carry_over import Carried
from tfcseg.report import FrameTable
from tfcseg.report.page import PageRecorder
from tfcseg.runs.carried_file import save_carried
from tfcseg.runs.measuring import FrameMeasurer, MeasuredFrame
from tfcseg.runs.result_plan import CARRIED_NAME, LABELS_NAME, ResultPlan
from tfcseg.runs.state import Checkpoint
from tfcseg.runs.summary import RunFacts, Summary
from tfcseg.weights.loading import LoadedModel


class ResultWriter:
    """Writes the results of one run; ``close`` completes the files, ``abort`` drops parts of videos that are not.

    At the end of every part it saves what it takes to go on from there, in a thread of its own. With a ``checkpoint``
    it goes on itself, once ``remember`` has shown it the last image before.
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
        """What the next frame's keyframe takes over from the last one written."""
        self.recorder = self._make_recorder(checkpoint)
        self._checkpoint = checkpoint
        self._frames = self.summary.frames
        self._measurer = FrameMeasurer(len(plan.labels), use_flow=plan.options.tc)
        self._videos = self._make_videos(checkpoint)
        self._masks: MaskWriter | None = None
        self._table: FrameTable | None = None
        self._saved: Future[None] | None = None
        self._last = np.zeros((0, 0), np.uint8)
        with ExitStack() as undo:
            undo.callback(self.abort)
            self._saver = ThreadPoolExecutor(1, "tfcseg-save")
            if self._options.masks:
                self._masks = MaskWriter(plan.out.masks, self._palette)
            if self._options.frames_csv:
                self._table = FrameTable(plan.out.frames_csv, checkpoint.rows_bytes if checkpoint else 0)
            undo.pop_all()

    @property
    def part_frames(self) -> int:
        """Frames between two checkpoints, each of which must begin with an interval."""
        return self._plan.part_frames

    def remember(self, image: Image) -> None:
        """Take the last image before the checkpoint, with which the next one is compared."""
        self._measurer.remember(image, read_mask(self._plan.state.pictures(self.summary.frames) / LABELS_NAME))

    def write(self, frame: SegmentedFrame) -> None:
        """Render and write one frame; OutputError if something cannot be written."""
        shares = self._measurer.add(frame)
        if self._masks:
            self._masks.write(frame.index, frame.labels)
        self._videos.write(frame, shares)
        self._frames += 1
        self.carried = frame.carried
        if self._frames % self._plan.part_frames:
            self._record(self._measurer.finished())
        else:
            self._end_part()

    def close(self) -> None:
        """Complete all files and give the videos their names."""
        if self._checkpoint is None or self._frames > self._checkpoint.frames:
            self._end_part()
        if self.recorder:
            self.recorder.drawn_moments()  # while the encoder finishes
        self._wait_until_saved()
        out = self._plan.out
        if self._masks:
            self._masks.close()
            self._outputs["masks"] = out.masks.name
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
        frames_decoded: int,
        warnings: tuple[str, ...],
        compile_s: float | None = None,
    ) -> RunFacts:
        """What is to be reported besides the totals, after ``close``."""
        return RunFacts(
            model,
            options,
            self._plan.info,
            frames_decoded,
            warnings,
            self._measurer.flow_name,
            self._audio,
            self._plan.range_s,
            self._outputs,
            self._wall_s(),
            self._resumes,
            compile_s,
        )

    def stop(self) -> None:
        """Make a ``write`` that goes on in another thread fail soon; ``abort`` follows."""
        self._videos.stop()

    def abort(self) -> None:
        """Drop what is not complete; finished masks, rows and parts stay. After ``close`` nothing is left to drop."""
        self._measurer.close()
        self._saver.shutdown()
        self._videos.abort()
        with suppress(OutputError):  # the error that is already on its way is the cause
            if self._masks:
                self._masks.close()
        with suppress(OutputError):
            if self._table:
                self._table.close()

    def _record(self, measured: Iterable[MeasuredFrame]) -> None:
        """Write what is known of frames once they are measured."""
        for frame, shares, row in measured:
            self.summary.add(row, shares)
            if self.recorder:
                self.recorder.add(row, shares, frame.image, frame.labels)
            if self._table:
                self._table.write(row)
            self._last = frame.labels

    def _wall_s(self) -> float:
        """How long the run takes so far, with those that it continues."""
        return time.perf_counter() - self._started_s

    def _end_part(self) -> None:
        """Begin new parts of the videos; let the saver complete the old ones and then write a checkpoint."""
        self._videos.end_input()
        self._record(self._measurer.finished(0))
        self._wait_until_saved()
        self._checkpoint = Checkpoint(
            frames=self.summary.frames,
            rows_bytes=self._table.size_bytes if self._table else 0,
            wall_s=self._wall_s(),
            resumes=self._resumes,
            summary=self.summary.to_json(),
            legend=self._videos.legend_state(),
        )
        if self.recorder and self._plan.state.is_resumable:
            # In a thread that no signal interrupts: half-made zip files complain on stderr when they are dropped.
            self._saver.submit(self.recorder.save, self._plan.state.make_pictures(self.summary.frames)).result()
        masks = self._masks.pending() if self._masks else ()
        save = partial(self._save, self._checkpoint, self._videos.end_part(), masks, self._last, self.carried)
        self._saved = self._saver.submit(save)

    def _save(
        self,
        checkpoint: Checkpoint,
        complete_parts: Callable[[], None],
        masks: Sequence[Future[None]],
        labels: NDArray[np.uint8],
        carried: Carried | None,
    ) -> None:
        """Record ``checkpoint`` once everything before it is on disk.

        (H, W) ``labels`` are those of its last frame, ``carried`` is what the keyframe after it needs.

        Masks are not forced to the disk one by one, which would take long: they are looked at before the run goes on.
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

    def _wait_until_saved(self) -> None:
        saved, self._saved = self._saved, None
        if saved is not None:
            saved.result()

    def _make_recorder(self, checkpoint: Checkpoint | None) -> PageRecorder | None:
        if not self._options.page:
            return None
        if checkpoint is not None:
            return self._plan.restore_recorder(checkpoint)
        return PageRecorder(self._palette, self._plan.info.frame_rate)

    def _make_videos(self, checkpoint: Checkpoint | None) -> RenderedVideos:
        plan, options = self._plan, self._options
        sound = None if plan.info.audio is None else Sound(plan.info.path, *plan.range_s)
        frames = checkpoint.frames if checkpoint else 0
        videos = {
            name: PartedVideo(
                getattr(plan.out, name),
                partial(plan.state.part, name),
                plan.info.frame_rate,
                sound,
                frames,
                pixel_aspect=plan.info.pixel_aspect,
            )
            for name in options.videos
        }
        legend = Legend(plan.labels, (plan.info.height, plan.info.width)) if options.legend else None
        if legend is not None and checkpoint is not None and checkpoint.legend is not None:
            legend.restore(checkpoint.legend)
        visible = options.visible(plan.labels)
        return RenderedVideos(videos, self._palette, alpha=options.alpha, visible=visible, legend=legend)
