"""Save points to resume a run from, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from tfcseg.media.masks import full_palette, write_mask
from tfcseg.model.evidence import CarryOver
from tfcseg.report.recorder import PageRecorder
from tfcseg.runs.frame_files import FrameFiles
from tfcseg.runs.result_plan import CARRIED_NAME, LABELS_NAME, ResultPlan, save_carried
from tfcseg.runs.state import Checkpoint


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

    def begin(
        self,
        checkpoint: Checkpoint,
        complete_parts: Callable[[], None],
        labels: NDArray[np.uint8],
        carried: CarryOver | None,
    ) -> None:
        """Let the thread complete parts of videos, then record ``checkpoint``.

        (H, W) ``labels`` are those of its last frame; ``carried`` is the carry-over for the next keyframe.
        """
        pictures = self._files.pending()

        def save() -> None:
            complete_parts()
            for picture in pictures:
                picture.result()
            if self._plan.state.is_resumable:
                self._record(checkpoint, labels, carried)

        self._saved = self._thread.submit(save)

    def _record(self, checkpoint: Checkpoint, labels: NDArray[np.uint8], carried: CarryOver | None) -> None:
        """Record ``checkpoint`` once everything before it is on disk.

        Flushing every mask to disk would be slow. Instead masks are checked when the run resumes.
        """
        plan, state = self._plan, self._plan.state
        self._files.sync()
        folder = state.make_pictures(checkpoint.frames)
        if carried is not None:
            save_carried(folder / CARRIED_NAME, carried)
        write_mask(folder / LABELS_NAME, labels, full_palette(plan.labels.palette_array()))
        state.add(checkpoint)
        if not plan.options.formats:  # those of the previous part may be needed, too
            state.drop_labels(checkpoint.part_start - plan.part_frames)

    def wait(self) -> None:
        """Wait for the last checkpoint; raises what went wrong with it."""
        saved, self._saved = self._saved, None
        if saved is not None:
            saved.result()

    def close(self) -> None:
        """End the thread once it is done."""
        self._thread.shutdown()
