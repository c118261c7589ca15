"""Which results a run writes and where, and whether a resumed run still finds them.

Letters: K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    """The results of one run on one video."""

    options: ResultOptions
    out: OutputDir
    state: RunState
    info: VideoInfo
    labels: LabelSet
    range_s: tuple[float | None, float | None]
    part_frames: int
    """Frames of a part of the videos."""
    has_groups: bool = True
    """Whether frames come in groups, between which a run can be saved as well."""
    carries: bool = False
    """Whether keyframes take anything over from the one before."""

    def is_intact(self, checkpoint: Checkpoint) -> bool:
        """Whether everything written before ``checkpoint`` is still on disk."""
        frames, pictures = checkpoint.frames, self.state.pictures(checkpoint.frames)
        parts = range(0, checkpoint.part_start, self.part_frames)
        files = [self.state.part(name, first) for name in self.options.videos for first in parts]
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
        if self.keeps_labels:
            masks += [self.kept_labels(at) for at in range(checkpoint.part_start, frames)]
        return all(path.is_file() for path in files) and all(map(is_whole_mask, [pictures / LABELS_NAME, *masks]))

    @property
    def keeps_labels(self) -> bool:
        """Whether labels are kept only to draw parts again that were not complete when the run was stopped."""
        return bool(self.options.videos) and not self.options.masks and self.state.is_resumable

    def kept_labels(self, index: int) -> Path:
        """Where the labels of a frame are, if videos are written and its part is not complete."""
        return numbered(self.out.masks if self.options.masks else self.state.labels, index)

    def restore_carried(self, checkpoint: Checkpoint) -> HandedOn | None:
        """Load what the keyframe after ``checkpoint`` takes over; OutputError if it is missing or damaged."""
        return load_carried(self.state.pictures(checkpoint.frames) / CARRIED_NAME) if self.carries else None

    def restore_recorder(self, checkpoint: Checkpoint) -> PageRecorder:
        """Load what report.html needs of the frames before ``checkpoint``; OutputError if it is missing or damaged."""
        folder = self.state.pictures(checkpoint.frames)
        palette, rate = self.labels.palette_array(), self.info.frame_rate
        return PageRecorder.restore(folder, palette, rate, self.options.unsure_below)
