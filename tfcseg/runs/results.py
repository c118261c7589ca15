"""Write a run's results frame by frame (render → write → report), and checkpoints to resume from.

Letters: H W image, K classes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import Labels, class_shares, overlay, side_by_side
from tfcseg.errors import OutputError
from tfcseg.files import write_json
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.machine import available_cores
from tfcseg.media.frames import Frame, Image, most_waiting
from tfcseg.media.masks import Mask, MaskWriter, read_mask
from tfcseg.media.writer import Sound, VideoWriter, finish_parts
from tfcseg.metrics.consistency import ConsistencyMeter, Followed, FrameConsistency, Preset
from tfcseg.report.schema import FrameRow, FrameTable, columns_for
from tfcseg.runs.job import CARRIED_NAME, Job, save_carried
from tfcseg.runs.options import KINDS
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
        self.videos = Videos(job, checkpoint)
        self._pictures = _mask_writers(job)
        self._files: list[MaskWriter | FrameTable] = [*self._pictures.values()]
        # A list of classes needs names of the values.
        has_values = options.masks or "video" in options.formats
        self._has_class_list = has_values and (job.given is None or 0 in job.given.classes.names)
        if self._has_class_list:
            write_json(job.out.classes_json, _class_list(job))
        self._table: FrameTable | None = None
        if options.frames_csv:
            columns = columns_for(has_sources=bool(job.info.names), has_before=job.given is not None)
            self._table = FrameTable(job.out.frames_csv, checkpoint.rows_bytes if checkpoint else 0, columns)
            self._files.append(self._table)
        self._saver = ThreadPoolExecutor(1, "tfcseg-save")
        self._saved: Future[None] = self._saver.submit(lambda: None)

    def replay(self, index: int, image: Image) -> None:
        """Take an image from before the checkpoint: the last one is compared with the next, some are drawn again."""
        is_last, given = index == self.summary.frames - 1, self.job.given
        if not is_last and index < self._part_start:
            return
        labels = read_mask(self.job.kept_labels(index))
        if is_last:
            self.measurer.remember(image, [labels] if given is None else self.job.compared_values(index))
        if index >= self._part_start:
            self.videos.write(image, labels, class_shares(labels, len(self.labels)), self.job.names(index))

    def write(self, frame: SegmentedFrame) -> None:
        """Render and write one frame; OutputError if something cannot be written."""
        self._is_between_groups = False
        if self.job.options.unsure is not None:
            frame = frame.without_unsure(self.job.options.unsure)
        shares = self.measurer.add(frame)
        self._write_pictures(frame)
        self.videos.write(frame.image, frame.labels, shares, frame.label_set.names)
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
            self._begin_to_save()

    def close(self) -> None:
        """Complete all files and give the videos their final names."""
        if self._frames > self._part_start:
            self._end_part()
        self._saved.result()
        for file in self._files:
            file.close()
        self.audio = self.videos.finish(self.part_frames)
        self.outputs = {kind: KINDS[kind] for kind in self.job.options.kinds}
        if self._has_class_list:
            self.outputs["classes"] = self.job.out.classes_json.name

    def wall_s(self) -> float:
        """Seconds of this run so far, including the runs that it resumes."""
        return time.perf_counter() - self._started_s

    def abort(self) -> None:
        """Drop incomplete files; complete masks, rows and parts stay. After ``close`` there is nothing to drop."""
        self.measurer.close()
        self._saver.shutdown()
        self.videos.abort()
        for file in self._files:
            with suppress(OutputError):  # the error that is already being raised is the cause
                file.close()

    def _write_pictures(self, frame: SegmentedFrame) -> None:
        """Begin to write the pictures of one frame."""
        for name, writer in self._pictures.items():
            if name == "confidence":
                if (confidence := frame.confidence) is not None:
                    writer.write(frame.index, confidence)
            elif name == "labels" or frame.steadied is None:
                writer.write(frame.index, frame.labels)
            elif frame.steadied.mask is not None and self.job.given is not None:
                writer.write(frame.index, frame.steadied.mask, self.job.given.form)

    def _record(self, measured: Iterable[tuple[SegmentedFrame, NDArray[np.float64], FrameRow]]) -> None:
        for frame, shares, row in measured:
            is_cut = self.measurer.is_cut(row)
            self.summary.add(row, shares, is_cut=is_cut)
            if frame.steadied is not None:
                self.summary.filled += frame.steadied.is_filled
                if (mask := frame.steadied.mask) is not None and mask.dtype == np.uint16:
                    self.summary.add_ids(mask)
            if self.recorder:
                self.recorder.add(row, shares, frame.image, frame.labels, frame.confidence_grid, is_cut=is_cut)
            if self._table:
                names = self.job.info.names
                self._table.write(replace(row, source=names[row.frame]) if names else row)

    def _end_part(self) -> None:
        """Start new parts of the videos; let the saver complete the old ones and then write a checkpoint."""
        legend, self._part_start = self.videos.legend, self._frames
        self._part_legend = None if legend is None else legend.state()
        self._begin_to_save(ends_part=True)

    def _begin_to_save(self, *, ends_part: bool = False) -> None:
        """Let the saver complete the parts of videos, if they end here, and then write a checkpoint of all frames."""
        self._record(self.measurer.finished(0))
        self._saved.result()
        frames, carried = self.summary.frames, self.carried
        pictures = [each for writer in self._pictures.values() for each in writer.pending()]
        checkpoint = Checkpoint(
            frames=frames,
            part_start=self._part_start,
            rows_bytes=self._table.size_bytes if self._table else 0,
            wall_s=self.wall_s(),
            resumes=self.resumes,
            summary=self.summary.to_json(),
            legend=self._part_legend,
        )
        self._saved_frames, self._saved_s = self._frames, time.monotonic()
        if self.recorder and self._state.is_resumable:
            # In a thread that no signal interrupts: half-written zip files print complaints on stderr.
            self._saver.submit(self.recorder.save, self._state.make_folder_at(frames)).result()
        # Not before: if the lines above fail, the encoders are still there to be stopped.
        parts = self.videos.end_part() if ends_part else []

        def save() -> None:
            for part in parts:
                part.close()
            for picture in pictures:
                picture.result()
            if not self._state.is_resumable:
                return
            # Flushing every mask to disk would be slow. Instead masks are checked when the run resumes.
            if self._table:
                self._table.sync()
            if carried is not None:
                save_carried(self._state.make_folder_at(frames) / CARRIED_NAME, carried)
            self._state.add(checkpoint)
            if not self.job.options.formats:  # those of the part before may be needed, and the last one before it
                self._state.drop_labels(checkpoint.part_start - self.part_frames - 1)

        self._saved = self._saver.submit(save)


class Videos:
    """The videos of a run, which draw each frame once and are written in parts; with a ``checkpoint``, the parts after
    it. OutputError if a video cannot be written."""

    def __init__(self, job: Job, checkpoint: Checkpoint | None) -> None:
        options, labels = job.options, job.labels
        self._job, self._names = job, options.videos
        self._parts: dict[str, VideoWriter] = {}
        self._written = checkpoint.part_start if checkpoint else 0
        self._palette, self._alpha = labels.palette_array(), options.alpha
        self._visible = options.visible(labels)
        always = np.flatnonzero(self._visible).tolist() if options.classes else ()
        self.legend = Legend(labels, (job.info.height, job.info.width), always) if options.legend else None
        if self.legend is not None and checkpoint is not None and checkpoint.legend is not None:
            self.legend.restore(checkpoint.legend)

    def write(self, image: Image, labels: Labels, shares: NDArray[np.float64], names: Sequence[str]) -> None:
        """Append one frame, (H, W, 3) RGB, with its (H, W) ``labels``, and (K,) ``shares`` and ``names`` of classes."""
        pictures = {"source": image}
        if {*self._names} - {"source"}:
            picture = overlay(image, labels, self._palette, alpha=self._alpha, visible=self._visible)
            if self.legend is not None:
                self.legend.draw(picture, shares * self._visible, names)
            pictures["overlay"] = picture
        if "side_by_side" in self._names:
            pictures["side_by_side"] = side_by_side([image, picture], ["source", "tfcseg"])
        for name in self._names:
            if name not in self._parts:
                self._parts[name] = VideoWriter(
                    self._job.state.part(name, self._written),
                    size=(pictures[name].shape[0], pictures[name].shape[1]),
                    frame_rate=self._job.info.frame_rate,
                    pixel_aspect=self._job.info.pixel_aspect,
                    named=getattr(self._job.out, name),
                )
            self._parts[name].write(pictures[name])
        self._written += 1

    def end_part(self) -> list[VideoWriter]:
        """Let the next frame start new parts; returns these, to be closed in any thread."""
        parts, self._parts = self._parts, {}
        return [*parts.values()]

    def finish(self, part_frames: int) -> str | None:
        """Join the parts and name the videos; returns what happened to the sound, None without a video."""
        info, run = self._job.info, self._job.run
        sound = None if info.audio is None else Sound(info.source, run.start_s, run.end_s)
        happened = None
        for name in self._names:
            parts = [self._job.state.part(name, first) for first in range(0, self._written, part_frames)]
            happened = finish_parts(parts, getattr(self._job.out, name), info.frame_rate, sound)
        return happened

    def stop(self) -> None:
        """Make a ``write`` in another thread fail soon; ``abort`` follows."""
        for part in [*self._parts.values()]:
            part.stop()

    def abort(self) -> None:
        """Drop the parts that are being written."""
        for part in self._parts.values():
            part.abort()


def _mask_writers(job: Job) -> dict[str, MaskWriter]:
    """Writers of the pictures of frames that the options of ``job`` ask for, or that are needed to resume it."""
    palette, writers = job.labels.palette_array(), {}
    if job.options.masks:
        writers["masks"] = MaskWriter(job.out.masks, palette, job.mask)
    if job.keeps_labels:
        writers["labels"] = MaskWriter(job.state.labels, palette)
    if job.options.confidence:
        writers["confidence"] = MaskWriter(job.out.confidence, path_of=job.mask)
    return writers


def _class_list(job: Job) -> list[dict[str, Any]]:
    """Index, name and RGB colour of each class, and of pixels without one. Classes of masks that were given are those
    that their values meant, with the colours that they are drawn with."""
    names, palette = job.labels.names, job.labels.palette
    if job.given is not None:
        drawn = [(*palette, (0, 0, 0))[label] for label in job.given.labels_of_values.tolist()]
        named = sorted(job.given.classes.names.items())
        return [{"index": index, "name": name, "colour": drawn[index % len(drawn)]} for index, name in named]
    entries = enumerate(zip(names, palette, strict=True))
    classes = [{"index": index, "name": name, "colour": colour} for index, (name, colour) in entries]
    nothing = {"index": NO_CLASS, "name": "no class", "colour": (0, 0, 0)}
    return classes if job.options.unsure is None else [*classes, nothing]


_MAX_WORKERS = 4
_CORES_PER_WORKER = 4  # other cores decode, encode and, without a GPU, run the network


class FrameMeasurer:
    """Takes frames in order and returns them measured, in order; ``use_flow`` measures flow consistency, along a flow
    of that ``preset``. Labels with a probability below ``unsure_below`` are unsure.
    """

    def __init__(self, classes: int, *, use_flow: bool, unsure_below: float, preset: Preset = "medium") -> None:
        self._classes, self._unsure_below = classes, unsure_below
        self._meter = ConsistencyMeter(use_flow=use_flow, preset=preset)
        self.flow_name = self._meter.flow_name
        workers = max(1, min(_MAX_WORKERS, available_cores() // _CORES_PER_WORKER))
        self._pool = ThreadPoolExecutor(workers, "tfcseg-measure")
        self._followed: dict[int, Future[Followed | None]] = {}
        self._pending: deque[tuple[SegmentedFrame, NDArray[np.float64], Future[Followed | None] | None]] = deque()

    def remember(self, image: Image, maps: Sequence[Mask]) -> None:
        """Set the (H, W, 3) image and (H, W) labels or values that the next frame's are compared with."""
        self._meter.follow(image)
        self._meter.compare(maps, None)

    def follow(self, frame: Frame) -> None:
        """Start with the flow to a frame whose labels are not known yet; then all frames must be given, in order.
        InputError if the size changes."""
        self._followed[frame.index] = self._pool.submit(self._meter.follow(frame.image))

    def add(self, frame: SegmentedFrame) -> NDArray[np.float64]:
        """Start measuring ``frame``; returns the (K,) shares of its classes. InputError if the size changes."""
        shares = class_shares(frame.labels, self._classes)
        followed = self._followed.pop(frame.index, None)
        if followed is None and frame.model_ms is not None:  # what repeats the frame before has its measurements, too
            followed = self._pool.submit(self._meter.follow(frame.image))
        self._pending.append((frame, shares, followed))
        return shares

    def finished(
        self, max_pending: int | None = None
    ) -> Iterator[tuple[SegmentedFrame, NDArray[np.float64], FrameRow]]:
        """Return the next measured frames, with the (K,) shares of their classes; waits until at most ``max_pending``
        remain, by default a few."""
        if max_pending is None:
            max_pending = most_waiting(*self._pending[-1][0].labels.shape) if self._pending else 0
        while self._pending:
            followed = self._pending[0][2]
            if len(self._pending) <= max_pending and followed is not None and not followed.done():
                return
            frame, shares, _ = self._pending.popleft()
            maps = [frame.labels] if frame.steadied is None else frame.steadied.compared
            changes = self._meter.repeat() if followed is None else self._meter.compare(maps, followed.result())
            if frame.is_stand_in:  # a frame that was never seen is not a steady one
                changes = [FrameConsistency(None, None)] * len(maps)
            yield frame, shares, _row(frame, changes, self._unsure_below)

    def is_cut(self, row: FrameRow) -> bool:
        """Whether a frame of `finished` shows another scene than the one before."""
        return self._meter.is_cut(FrameConsistency(row.label_change, row.flow_consistency))

    def close(self) -> None:
        """Stop the threads and drop unfinished frames."""
        self._pool.shutdown(cancel_futures=True)


def _row(frame: SegmentedFrame, changes: list[FrameConsistency], unsure_below: float) -> FrameRow:
    sure, change = frame.confidence_grid, changes[0]
    before = changes[1] if len(changes) > 1 else FrameConsistency(None, None)
    return FrameRow(
        frame=frame.index,
        time_s=frame.time_s,
        is_keyframe=frame.is_keyframe,
        similarity=None if frame.similarity is None else float(frame.similarity.mean()),
        updated_fraction=frame.updated_fraction,
        label_change=change.label_change,
        flow_consistency=change.flow_consistency,
        model_ms=frame.model_ms,
        is_held=frame.is_held,
        confidence=None if sure is None else float(sure.mean()) / 255,
        unsure=None if sure is None else float((sure < 255 * unsure_below).mean()),
        label_change_before=before.label_change,
        flow_consistency_before=before.flow_consistency,
    )
