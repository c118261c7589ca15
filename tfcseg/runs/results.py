"""Write a run's results frame by frame (render → write → report), and checkpoints to resume from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from tfcseg.drawing.render import class_shares
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.inference.steadied import shown_labels
from tfcseg.media.frames import Image
from tfcseg.media.masks import read_mask
from tfcseg.metrics.consistency import Preset
from tfcseg.runs.job import CARRIED_NAME, Job, save_carried
from tfcseg.runs.measuring import FrameMeasurer, MeasuredFrame
from tfcseg.runs.options import KINDS
from tfcseg.runs.result_files import FrameFiles, Videos
from tfcseg.runs.state import Checkpoint
from tfcseg.runs.summary import Summary

SAFE_EVERY_S = 5.0
"""Seconds between checkpoints: a killed run loses at most this much work, plus the interval in progress."""


class ResultWriter:
    """Writes the results of one run. ``close`` completes the files; ``abort`` drops incomplete parts of videos.

    After every part and every few seconds, a separate thread saves what is needed to resume. With a ``checkpoint`` it
    resumes itself, after ``replay`` has passed it the earlier images. Encoders cannot be saved, so incomplete parts are
    drawn and encoded again from their labels.
    """

    def __init__(self, job: Job, started_s: float, checkpoint: Checkpoint | None = None) -> None:
        self.job, self._state = job, job.state
        self.part_frames = job.part_frames  # between two checkpoints, each of which begins with an interval
        self._started_s = started_s - (checkpoint.wall_s if checkpoint else 0.0)
        self.resumes = checkpoint.resumes + 1 if checkpoint else 0
        self.audio: str | None = None
        """What happened to the sound, once the files are complete; None if no video was written."""
        self.outputs: dict[str, str] = {}  # names of complete files by kind of result
        self.labels, options = job.labels, job.options
        self.summary = Summary.from_json(checkpoint.summary) if checkpoint else Summary(np.zeros(len(self.labels)))
        self.carried = job.restore_carried(checkpoint) if checkpoint else None
        """Carry-over for the next keyframe, from the frames written so far."""
        self.recorder = job.recorder(checkpoint) if options.page else None
        self._frames = self._saved_frames = self.summary.frames
        self._part_start = checkpoint.part_start if checkpoint else 0
        self._part_legend = checkpoint.legend if checkpoint else None
        self._saved_s, self._is_between_groups = time.monotonic(), False
        # Next to a network, the finer flow takes little time; next to steadying masks, it would take most of it.
        preset: Preset = "medium" if job.given is None else "fast"
        self.measurer = FrameMeasurer(
            len(self.labels), use_flow=options.flow_consistency, preset=preset, unsure_below=options.unsure_below
        )
        self.optical_flow = self.measurer.flow_name
        self.videos = Videos(job, checkpoint)
        self._files = FrameFiles(job, checkpoint)
        self._saver = ThreadPoolExecutor(1, "tfcseg-save")
        self._saved: Future[None] | None = None

    def replay(self, index: int, image: Image) -> None:
        """Take an image from before the checkpoint: the last one is compared with the next, some are drawn again."""
        is_last, given = index == self.summary.frames - 1, self.job.given
        if not is_last and index < self._part_start:
            return
        labels = read_mask(self.job.kept_labels(index))
        if is_last:
            maps = [labels] if given is None else [labels, shown_labels(given, index, labels)]
            self.measurer.remember(image, maps)
        if index >= self._part_start:
            self.videos.write(image, labels, class_shares(labels, len(self.labels)))

    def write(self, frame: SegmentedFrame) -> None:
        """Render and write one frame; OutputError if something cannot be written."""
        self._is_between_groups = False
        if self.job.options.unsure is not None:
            frame = frame.without_unsure(self.job.options.unsure)
        shares = self.measurer.add(frame)
        self._files.write(frame)
        self.videos.write(frame.image, frame.labels, shares)
        self._frames += 1
        self.carried = frame.carried
        if self._frames % self.part_frames:
            self._record(self.measurer.finished())
        else:
            self._end_part()
        self._is_between_groups = frame.ends_group
        if time.monotonic() - self._saved_s > SAFE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Start saving a point to resume from, if the run can be resumed; ``abort`` waits for it."""
        if self._is_between_groups and self._frames > self._saved_frames and self.job.saves_between_parts:
            self._record(self.measurer.finished(0))
            self._wait_until_saved()
            self._begin_to_save()

    def close(self) -> None:
        """Complete all files and give the videos their final names."""
        if self._frames > self._part_start:
            self._end_part()
        self._wait_until_saved()
        self._files.close()
        self.audio = self.videos.finish(self.part_frames)
        self.outputs = {kind: KINDS[kind] for kind in self.job.options.kinds}
        if self._files.has_class_list:
            self.outputs["classes"] = self.job.out.classes_json.name

    def wall_s(self) -> float:
        """Seconds of this run so far, including the runs that it resumes."""
        return time.perf_counter() - self._started_s

    def abort(self) -> None:
        """Drop incomplete files; complete masks, rows and parts stay. After ``close`` there is nothing to drop."""
        self.measurer.close()
        self._saver.shutdown()
        self.videos.abort()
        self._files.abort()

    def _record(self, measured: Iterable[MeasuredFrame]) -> None:
        for frame, shares, row in measured:
            self.summary.add(row, shares)
            if frame.steadied is not None:
                self.summary.filled += frame.steadied.is_filled
            if self.recorder:
                self.recorder.add(row, shares, frame.image, frame.labels, frame.confidence_grid)
            self._files.write_row(row)

    def _end_part(self) -> None:
        """Start new parts of the videos; let the saver complete the old ones and then write a checkpoint."""
        self._record(self.measurer.finished(0))
        self._wait_until_saved()
        self._part_start, self._part_legend = self._frames, self.videos.legend_state()
        self._begin_to_save(self.videos.end_part)

    def _begin_to_save(self, end_parts: Callable[[], Callable[[], None]] = lambda: lambda: None) -> None:
        """Let the saver complete what ``end_parts`` ends, and then write a checkpoint of everything recorded."""
        frames, carried, pictures = self.summary.frames, self.carried, self._files.pending()
        checkpoint = Checkpoint(
            frames=frames,
            part_start=self._part_start,
            rows_bytes=self._files.rows_bytes,
            wall_s=self.wall_s(),
            resumes=self.resumes,
            summary=self.summary.to_json(),
            legend=self._part_legend,
        )
        self._saved_frames, self._saved_s = self._frames, time.monotonic()
        if self.recorder and self._state.is_resumable:
            # In a thread that no signal interrupts: half-written zip files print complaints on stderr.
            self._saver.submit(self.recorder.save, self._state.make_pictures(frames)).result()
        complete_parts = end_parts()  # not before: if the lines above fail, the encoders are still there to be stopped

        def save() -> None:
            complete_parts()
            for picture in pictures:
                picture.result()
            if not self._state.is_resumable:
                return
            # Flushing every mask to disk would be slow. Instead masks are checked when the run resumes.
            self._files.sync()
            if carried is not None:
                save_carried(self._state.make_pictures(frames) / CARRIED_NAME, carried)
            self._state.add(checkpoint)
            if not self.job.options.formats:  # those of the part before may be needed, and the last one before it
                self._state.drop_labels(checkpoint.part_start - self.part_frames - 1)

        self._saved = self._saver.submit(save)

    def _wait_until_saved(self) -> None:
        saved, self._saved = self._saved, None
        if saved is not None:
            saved.result()
