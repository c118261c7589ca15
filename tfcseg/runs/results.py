"""Write a run's results frame by frame (render → write → report), and checkpoints to resume from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import Labels, class_shares, overlay, side_by_side
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.inference.steadied import shown_labels
from tfcseg.media.audio import Sound
from tfcseg.media.frames import Frame, Image
from tfcseg.media.masks import read_mask
from tfcseg.media.writer import PartedVideo
from tfcseg.metrics.consistency import Preset
from tfcseg.runs.frame_files import CheckpointSaver, FrameFiles
from tfcseg.runs.measuring import FrameMeasurer, MeasuredFrame
from tfcseg.runs.options import KINDS
from tfcseg.runs.result_plan import ResultPlan
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

    def __init__(self, plan: ResultPlan, started_s: float, checkpoint: Checkpoint | None = None) -> None:
        self.plan = plan
        self.part_frames = plan.part_frames  # between two checkpoints, each of which begins with an interval
        self._options = plan.options
        self._started_s = started_s - (checkpoint.wall_s if checkpoint else 0.0)
        self.resumes = checkpoint.resumes + 1 if checkpoint else 0
        self.audio: str | None = None
        """What happened to the sound, once the files are complete; None if no video was written."""
        self.outputs: dict[str, str] = {}
        """Names of complete files by kind of result."""
        self.summary = Summary.from_json(checkpoint.summary) if checkpoint else Summary(np.zeros(len(plan.labels)))
        self.carried = plan.restore_carried(checkpoint) if checkpoint else None
        """Carry-over for the next keyframe, from the frames written so far."""
        self.recorder = plan.recorder(checkpoint) if plan.options.page else None
        self._frames = self._saved_frames = self.summary.frames
        self._part_start = checkpoint.part_start if checkpoint else 0
        self._part_legend = checkpoint.legend if checkpoint else None
        self._saved_s, self._is_between_groups = time.monotonic(), False
        use_flow, unsure_below = plan.options.flow_consistency, plan.options.unsure_below
        # Next to a network, the finer flow takes little time; next to steadying masks, it would take most of it.
        preset: Preset = "medium" if plan.given is None else "fast"
        self._measurer = FrameMeasurer(len(plan.labels), use_flow=use_flow, preset=preset, unsure_below=unsure_below)
        self._videos = _Videos(plan, checkpoint)
        self._files = FrameFiles(plan, checkpoint)
        self._saver = CheckpointSaver(plan, self._files)

    @property
    def saves_between_parts(self) -> bool:
        """Whether a run can also resume from the end of a group of frames."""
        return self.plan.state.is_resumable and self.plan.has_groups

    def replay(self, index: int, image: Image) -> None:
        """Take an image from before the checkpoint: the last one is compared with the next, some are drawn again."""
        is_last = index == self.summary.frames - 1
        if not is_last and index < self._part_start:
            return
        labels = read_mask(self.plan.kept_labels(index))
        if is_last:
            given = [] if self.plan.given is None else [shown_labels(self.plan.given, index, labels)]
            self._measurer.remember(image, [labels, *given])
        if index >= self._part_start:
            self._videos.write(image, labels, class_shares(labels, len(self.plan.labels)))

    def follow(self, frame: Frame) -> None:
        """Take a frame whose labels come later, so that measuring them takes less time then; see `FrameMeasurer`."""
        self._measurer.follow(frame)

    def write(self, frame: SegmentedFrame) -> None:
        """Render and write one frame; OutputError if something cannot be written."""
        self._is_between_groups = False
        if self._options.unsure is not None:
            frame = frame.without_unsure(self._options.unsure)
        shares = self._measurer.add(frame)
        self._files.write(frame)
        self._videos.write(frame.image, frame.labels, shares)
        self._frames += 1
        self.carried = frame.carried
        if self._frames % self.plan.part_frames:
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
            self._saver.wait()
            self._begin_to_save(lambda: lambda: None)

    def close(self) -> None:
        """Complete all files and give the videos their final names."""
        if self._frames > self._part_start:
            self._end_part()
        self._saver.wait()
        self._files.close()
        self.audio = self._videos.finish(self.plan.part_frames)
        self.outputs = {kind: KINDS[kind] for kind in self._options.kinds}
        if self._options.masks and self._files.has_classes:
            self.outputs["classes"] = self.plan.out.classes_json.name

    @property
    def optical_flow(self) -> str | None:
        """Name of the optical flow that flow consistency is measured with."""
        return self._measurer.flow_name

    def wall_s(self) -> float:
        """Seconds of this run so far, including the runs that it resumes."""
        return time.perf_counter() - self._started_s

    def stop(self) -> None:
        """Make a ``write`` in another thread fail soon; ``abort`` follows."""
        self._videos.stop()

    def abort(self) -> None:
        """Drop incomplete files; complete masks, rows and parts stay. After ``close`` there is nothing to drop."""
        self._measurer.close()
        self._saver.close()
        self._videos.abort()
        self._files.abort()

    def _record(self, measured: Iterable[MeasuredFrame]) -> None:
        """Write the rows of frames that have been measured."""
        for frame, shares, row in measured:
            self.summary.add(row, shares)
            if frame.steadied is not None:
                self.summary.filled += frame.steadied.is_filled
                self.summary.mean("contrast").add(frame.steadied.contrast)
            if self.recorder:
                self.recorder.add(row, shares, frame.image, frame.labels, frame.confidence_grid)
            self._files.write_row(row)

    def _end_part(self) -> None:
        """Start new parts of the videos; let the saver complete the old ones and then write a checkpoint."""
        self._record(self._measurer.finished(0))
        self._saver.wait()
        self._part_start, self._part_legend = self._frames, self._videos.legend_state()
        self._begin_to_save(self._videos.end_part)

    def _begin_to_save(self, end_parts: Callable[[], Callable[[], None]]) -> None:
        """Let the saver complete what ``end_parts`` ends, then write a checkpoint of everything recorded."""
        checkpoint = Checkpoint(
            frames=self.summary.frames,
            part_start=self._part_start,
            rows_bytes=self._files.rows_bytes,
            wall_s=self.wall_s(),
            resumes=self.resumes,
            summary=self.summary.to_json(),
            legend=self._part_legend,
        )
        self._saved_frames, self._saved_s = self._frames, time.monotonic()
        if self.recorder:
            self._saver.save_recorder(self.recorder, self.summary.frames)
        self._saver.begin(checkpoint, end_parts(), self.carried)


class _Videos:
    """The videos of a run, which draw each frame once; with a ``checkpoint``, the parts after it.

    OutputError if a video cannot be written.
    """

    def __init__(self, plan: ResultPlan, checkpoint: Checkpoint | None) -> None:
        options, info = plan.options, plan.info
        sound = None if info.audio is None else Sound(info.source, *plan.range_s)
        self._videos = {
            name: PartedVideo(
                getattr(plan.out, name),
                partial(plan.state.part, name),
                info.frame_rate,
                sound,
                checkpoint.part_start if checkpoint else 0,
                pixel_aspect=info.pixel_aspect,
            )
            for name in options.videos
        }
        self._palette, self._alpha = plan.labels.palette_array(), options.alpha
        self._visible = options.visible(plan.labels)
        always = np.flatnonzero(self._visible).tolist() if options.classes else ()
        self._legend = Legend(plan.labels, (info.height, info.width), always) if options.legend else None
        if self._legend is not None and checkpoint is not None and checkpoint.legend is not None:
            self._legend.restore(checkpoint.legend)

    def write(self, image: Image, labels: Labels, shares: NDArray[np.float64]) -> None:
        """Append one frame, (H, W, 3) RGB, with its (H, W) ``labels`` and the (K,) ``shares`` of its classes."""
        if "source" in self._videos:
            self._videos["source"].write(image)
        if not self._videos.keys() - {"source"}:
            return
        picture = overlay(image, labels, self._palette, alpha=self._alpha, visible=self._visible)
        if self._legend is not None:
            self._legend.draw(picture, shares * self._visible)
        if "overlay" in self._videos:
            self._videos["overlay"].write(picture)
        if "side_by_side" in self._videos:
            self._videos["side_by_side"].write(side_by_side([image, picture], ["source", "tfcseg"]))

    def legend_state(self) -> dict[str, Any] | None:
        """State of the legend in JSON types; None without a legend."""
        return None if self._legend is None else self._legend.state()

    def end_part(self) -> Callable[[], None]:
        """Let the next frame start new parts; returns a function that completes these, in any thread."""
        endings = [video.end_part() for video in self._videos.values()]

        def complete() -> None:
            for ending in endings:
                ending()

        return complete

    def finish(self, part_frames: int) -> str | None:
        """Join the parts and name the videos; returns what happened to the sound, None without a video."""
        sound = None
        for video in self._videos.values():
            sound = video.finish(part_frames)
        return sound

    def stop(self) -> None:
        """Make a ``write`` in another thread fail soon; ``abort`` follows."""
        for video in self._videos.values():
            video.stop()

    def abort(self) -> None:
        """Drop the parts that are being written."""
        for video in self._videos.values():
            video.abort()
