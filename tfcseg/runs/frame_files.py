"""Write files frame by frame (masks, confidence, kept labels, the table of frames), and points to resume from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tfcseg.errors import OutputError
from tfcseg.files import write_json
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.media.masks import MaskWriter
from tfcseg.model.evidence import CarryOver
from tfcseg.report.recorder import PageRecorder
from tfcseg.report.schema import FrameRow, FrameTable, columns_for
from tfcseg.runs.result_plan import CARRIED_NAME, ResultPlan, save_carried
from tfcseg.runs.state import Checkpoint


class FrameFiles:
    """The files that the options of ``plan`` ask for; with a ``checkpoint`` the table is continued."""

    def __init__(self, plan: ResultPlan, checkpoint: Checkpoint | None) -> None:
        options, palette = plan.options, plan.labels.palette_array()
        self._plan = plan
        self._writers: dict[str, MaskWriter] = {}
        self._table: FrameTable | None = None
        if options.masks:
            self._writers["masks"] = MaskWriter(plan.out.masks, palette, plan.mask)
            if self.has_classes:
                write_json(plan.out.classes_json, _class_list(plan))
        if plan.keeps_labels:
            self._writers["labels"] = MaskWriter(plan.state.labels, palette)
        if options.confidence:
            self._writers["confidence"] = MaskWriter(plan.out.confidence, path_of=plan.mask)
        if options.frames_csv:
            columns = columns_for(has_sources=bool(plan.info.names), has_before=plan.given is not None)
            self._table = FrameTable(plan.out.frames_csv, checkpoint.rows_bytes if checkpoint else 0, columns)

    def write(self, frame: SegmentedFrame) -> None:
        """Begin to write the pictures of one frame."""
        for name, writer in self._writers.items():
            if name == "confidence":
                if (confidence := frame.confidence) is not None:
                    writer.write(frame.index, confidence)
            elif name == "labels" or frame.steadied is None:
                writer.write(frame.index, frame.labels)
            elif frame.steadied.mask is not None and self._plan.given is not None:
                writer.write_like(frame.index, frame.steadied.mask, self._plan.given.form)

    def write_row(self, row: FrameRow) -> None:
        """Write the measurements of one frame."""
        if self._table:
            names = self._plan.info.names
            self._table.write(replace(row, source=names[row.frame]) if names else row)

    @property
    def has_classes(self) -> bool:
        """Whether the values of masks have names."""
        return self._plan.given is None or 0 in self._plan.given.classes.names

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

    def close(self) -> None:
        """Complete the files."""
        for writer in self._open:
            writer.close()

    def abort(self) -> None:
        """End writing; finished files stay."""
        for writer in self._open:
            with suppress(OutputError):  # the error that is already being raised is the cause
                writer.close()

    @property
    def _open(self) -> list[MaskWriter | FrameTable]:
        return [*self._writers.values(), *([] if self._table is None else [self._table])]


def _class_list(plan: ResultPlan) -> list[dict[str, Any]]:
    """Index, name and RGB colour of each class, and of pixels without one.

    Classes of masks that were given are those that their values meant, with the colours that they are drawn with.
    """
    names, palette = plan.labels.names, plan.labels.palette
    if plan.given is not None:
        named = sorted(plan.given.classes.names.items())
        return [{"index": index, "name": name, "colour": palette[index % len(palette)]} for index, name in named]
    entries = enumerate(zip(names, palette, strict=True))
    classes = [{"index": index, "name": name, "colour": colour} for index, (name, colour) in entries]
    nothing = {"index": NO_CLASS, "name": "no class", "colour": (0, 0, 0)}
    return classes if plan.options.unsure is None else [*classes, nothing]


class CheckpointSaver:
    """Saves one checkpoint after the other, if the run of ``plan`` can be resumed."""

    def __init__(self, plan: ResultPlan, files: FrameFiles) -> None:
        self._plan, self._files = plan, files
        self._thread = ThreadPoolExecutor(1, "tfcseg-save")
        self._saved: Future[None] | None = None

    def save_recorder(self, recorder: PageRecorder, frames: int) -> None:
        """Save what report.html needs of so many frames."""
        if self._plan.state.is_resumable:
            # In a thread that no signal interrupts: half-written zip files print complaints on stderr.
            self._thread.submit(recorder.save, self._plan.state.make_pictures(frames)).result()

    def begin(self, checkpoint: Checkpoint, complete_parts: Callable[[], None], carried: CarryOver | None) -> None:
        """Let the thread complete parts of videos, then record ``checkpoint``.

        ``carried`` is the carry-over for the next keyframe.
        """
        pictures = self._files.pending()

        def save() -> None:
            complete_parts()
            for picture in pictures:
                picture.result()
            if self._plan.state.is_resumable:
                self._record(checkpoint, carried)

        self._saved = self._thread.submit(save)

    def _record(self, checkpoint: Checkpoint, carried: CarryOver | None) -> None:
        """Record ``checkpoint`` once everything before it is on disk.

        Flushing every mask to disk would be slow. Instead masks are checked when the run resumes.
        """
        plan, state = self._plan, self._plan.state
        self._files.sync()
        if carried is not None:
            save_carried(state.make_pictures(checkpoint.frames) / CARRIED_NAME, carried)
        state.add(checkpoint)
        if not plan.options.formats:  # those of the previous part may be needed, too, and the last one before it
            state.drop_labels(checkpoint.part_start - plan.part_frames - 1)

    def wait(self) -> None:
        """Wait for the last checkpoint; raises what went wrong with it."""
        saved, self._saved = self._saved, None
        if saved is not None:
            saved.result()

    def close(self) -> None:
        """End the thread once it is done."""
        self._thread.shutdown()
