"""Videos of a run, and what is written frame by frame: masks, confidence, kept labels, the table of frames.

Letters: H W image, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import Labels, overlay, side_by_side
from tfcseg.errors import OutputError
from tfcseg.files import write_json
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.media.audio import Sound
from tfcseg.media.frames import Image
from tfcseg.media.masks import MaskWriter
from tfcseg.media.writer import PartedVideo
from tfcseg.report.schema import FrameRow, FrameTable, columns_for
from tfcseg.runs.job import Job
from tfcseg.runs.state import Checkpoint


class Videos:
    """The videos of a run, which draw each frame once; with a ``checkpoint``, the parts after it. OutputError if a
    video cannot be written."""

    def __init__(self, job: Job, checkpoint: Checkpoint | None) -> None:
        options, info, labels = job.options, job.info, job.labels
        sound = None if info.audio is None else Sound(info.source, *job.run.range_s)
        self._videos = {
            name: PartedVideo(
                getattr(job.out, name),
                partial(job.state.part, name),
                info.frame_rate,
                sound,
                checkpoint.part_start if checkpoint else 0,
                pixel_aspect=info.pixel_aspect,
            )
            for name in options.videos
        }
        self._palette, self._alpha = labels.palette_array(), options.alpha
        self._visible = options.visible(labels)
        always = np.flatnonzero(self._visible).tolist() if options.classes else ()
        self._legend = Legend(labels, (info.height, info.width), always) if options.legend else None
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


class FrameFiles:
    """The files that the options of ``job`` ask for; with a ``checkpoint`` the table is continued."""

    def __init__(self, job: Job, checkpoint: Checkpoint | None) -> None:
        options, palette, out = job.options, job.labels.palette_array(), job.out
        self._names, self._given = job.info.names, job.given
        self._writers: dict[str, MaskWriter] = {}
        self.has_class_list = options.masks and (job.given is None or 0 in job.given.classes.names)
        """Whether there is a classes.json: it needs names of the values."""
        if options.masks:
            self._writers["masks"] = MaskWriter(out.masks, palette, job.mask)
        if self.has_class_list:
            write_json(out.classes_json, _class_list(job))
        if job.keeps_labels:
            self._writers["labels"] = MaskWriter(job.state.labels, palette)
        if options.confidence:
            self._writers["confidence"] = MaskWriter(out.confidence, path_of=job.mask)
        self._table: FrameTable | None = None
        if options.frames_csv:
            columns = columns_for(has_sources=bool(job.info.names), has_before=job.given is not None)
            self._table = FrameTable(out.frames_csv, checkpoint.rows_bytes if checkpoint else 0, columns)

    def write(self, frame: SegmentedFrame) -> None:
        """Begin to write the pictures of one frame."""
        for name, writer in self._writers.items():
            if name == "confidence":
                if (confidence := frame.confidence) is not None:
                    writer.write(frame.index, confidence)
            elif name == "labels" or frame.steadied is None:
                writer.write(frame.index, frame.labels)
            elif frame.steadied.mask is not None and self._given is not None:
                writer.write(frame.index, frame.steadied.mask, self._given.form)

    def write_row(self, row: FrameRow) -> None:
        """Write the measurements of one frame."""
        if self._table:
            self._table.write(replace(row, source=self._names[row.frame]) if self._names else row)

    @property
    def rows_bytes(self) -> int:
        """Size of the table so far."""
        return self._table.size_bytes if self._table else 0

    def pending(self) -> list[Future[None]]:
        """Pictures that are still being written."""
        return [each for writer in self._writers.values() for each in writer.pending()]

    def sync(self) -> None:
        """Wait until the rows are on disk."""
        if self._table:
            self._table.sync()

    @property
    def _open(self) -> list[MaskWriter | FrameTable]:
        return [*self._writers.values(), *([] if self._table is None else [self._table])]

    def close(self) -> None:
        """Complete the files."""
        for writer in self._open:
            writer.close()

    def abort(self) -> None:
        """End writing; finished files stay."""
        for writer in self._open:
            with suppress(OutputError):  # the error that is already being raised is the cause
                writer.close()


def _class_list(job: Job) -> list[dict[str, Any]]:
    """Index, name and RGB colour of each class, and of pixels without one. Classes of masks that were given are those
    that their values meant, with the colours that they are drawn with."""
    names, palette = job.labels.names, job.labels.palette
    if job.given is not None:
        named = sorted(job.given.classes.names.items())
        return [{"index": index, "name": name, "colour": palette[index % len(palette)]} for index, name in named]
    entries = enumerate(zip(names, palette, strict=True))
    classes = [{"index": index, "name": name, "colour": colour} for index, (name, colour) in entries]
    nothing = {"index": NO_CLASS, "name": "no class", "colour": (0, 0, 0)}
    return classes if job.options.unsure is None else [*classes, nothing]
