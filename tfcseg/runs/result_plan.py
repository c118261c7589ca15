"""Which results a run writes, where, and whether they are still there when it goes on.

Letters: K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfcseg.errors import OutputError
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import VideoInfo
from tfcseg.media.masks import is_whole_mask
from tfcseg.model.evidence import HandedOn
from tfcseg.report.page import PageRecorder
from tfcseg.runs.carried_file import load_carried
from tfcseg.runs.outputs import OutputDir, numbered
from tfcseg.runs.result_options import ResultOptions
from tfcseg.runs.state import Checkpoint, RunState

LABELS_NAME, CARRIED_NAME = "labels.png", "carried.npz"
"""Labels of the last frame before a checkpoint, and what its keyframe hands on, in the checkpoint's folder."""


@dataclass(frozen=True, slots=True)
class ResultPlan:
    """What is written, where, and of which video."""

    options: ResultOptions
    out: OutputDir
    state: RunState
    info: VideoInfo
    labels: LabelSet
    range_s: tuple[float | None, float | None]
    part_frames: int
    """Frames between two checkpoints."""
    carries: bool = False
    """Whether keyframes take anything over from the one before."""

    def is_intact(self, checkpoint: Checkpoint) -> bool:
        """Whether everything is still on disk that was written before ``checkpoint``."""
        frames, pictures = checkpoint.frames, self.state.pictures(checkpoint.frames)
        files = [self.state.part(name, first) for name in self.options.videos for first in self.parts(frames)]
        try:
            if self.options.page and self.restore_recorder(checkpoint).frames != frames:
                return False
            self.restore_carried(checkpoint)
            if self.options.frames_csv and self.out.frames_csv.stat().st_size < checkpoint.rows_bytes:
                return False
        except (OSError, OutputError):
            return False
        folders = {self.out.masks: self.options.masks, self.out.confidence: self.options.confidence}
        masks = [numbered(folder, at) for folder, is_written in folders.items() if is_written for at in range(frames)]
        return all(path.is_file() for path in files) and all(map(is_whole_mask, [pictures / LABELS_NAME, *masks]))

    def parts(self, frames: int) -> range:
        """First frames of the parts of videos that ``frames`` frames make."""
        return range(0, frames, self.part_frames)

    def restore_carried(self, checkpoint: Checkpoint) -> HandedOn | None:
        """What the keyframe after ``checkpoint`` takes over; OutputError if it is missing or damaged."""
        return load_carried(self.state.pictures(checkpoint.frames) / CARRIED_NAME) if self.carries else None

    def restore_recorder(self, checkpoint: Checkpoint) -> PageRecorder:
        """What report.html needs of the frames before ``checkpoint``; OutputError if it is missing or damaged."""
        folder = self.state.pictures(checkpoint.frames)
        palette, rate = self.labels.palette_array(), self.info.frame_rate
        return PageRecorder.restore(folder, palette, rate, self.options.unsure_below)
