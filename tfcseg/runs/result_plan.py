"""Which results a run writes, where, and whether they are still there when it goes on.

Letters: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, OutputError, UsageError
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import VideoInfo
from tfcseg.media.masks import is_whole_mask
from tfcseg.model.carry_over import Carried
from tfcseg.report.page import PageRecorder
from tfcseg.runs.carried_file import load_carried
from tfcseg.runs.outputs import OutputDir, numbered
from tfcseg.runs.state import Checkpoint, RunState

_UNSURE_BELOW = 0.5

LABELS_NAME, CARRIED_NAME = "labels.png", "carried.npz"
"""Labels of the last frame before a checkpoint, and what its keyframe hands on, in the checkpoint's folder."""


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """Which results a run writes, and how they look."""

    overlay: bool = True
    masks: bool = True
    frames_csv: bool = True
    report: bool = True
    html: bool | None = None
    """Write report.html; None: if there is a report."""
    side_by_side: bool = False
    copy_source: bool = False
    """Also write source.mp4, the frames as they were read, which browsers play whatever the source is."""
    confidence: bool = False
    """Also write confidence/00000000.png …: 8-bit gray, 255 times the probability that a label is right."""
    unsure: float | None = None
    """Give labels of a smaller probability of being right the value 255, no class; None leaves all."""
    alpha: float = 0.55
    """Opacity of the class colours, 0 to 1."""
    legend: bool = True
    classes: str | Sequence[str] = ()
    """Names of the classes to draw, one by one or with commas; the others stay as they were filmed. Empty: all."""
    tc: bool = True
    """Measure TC, which needs optical flow."""

    @property
    def unsure_below(self) -> float:
        """Probability of being right below which labels are counted as unsure."""
        return _UNSURE_BELOW if self.unsure is None else self.unsure

    @property
    def page(self) -> bool:
        """Whether report.html is written."""
        return self.report if self.html is None else self.html

    @property
    def videos(self) -> tuple[str, ...]:
        """Names of the videos that are written."""
        wanted = {"overlay": self.overlay, "side_by_side": self.side_by_side, "source": self.copy_source}
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    def visible(self, labels: LabelSet) -> NDArray[np.bool_] | None:
        """(K,) flags of the classes to draw, None for all. UsageError for senseless options and unknown names."""
        if not 0.0 <= self.alpha <= 1.0:
            raise UsageError(f"an alpha of {self.alpha:g} is not between 0 and 1")
        if self.unsure is not None and not 0.0 <= self.unsure <= 1.0:
            raise UsageError(f"--unsure {self.unsure:g} is not between 0 and 1")
        if not self.classes:
            return None
        flags = np.zeros(len(labels), np.bool_)
        try:
            flags[labels.indices(self.classes)] = True
        except DataError as error:
            raise UsageError(str(error)) from None
        return flags


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
    """Frames of a part of the videos."""
    has_groups: bool = True
    """Whether frames come in groups, between which a run can be saved as well."""
    carries: bool = False
    """Whether keyframes take anything over from the one before."""

    def is_intact(self, checkpoint: Checkpoint) -> bool:
        """Whether everything is still on disk that was written before ``checkpoint``."""
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

    def restore_carried(self, checkpoint: Checkpoint) -> Carried | None:
        """What the keyframe after ``checkpoint`` takes over; OutputError if it is missing or damaged."""
        return load_carried(self.state.pictures(checkpoint.frames) / CARRIED_NAME) if self.carries else None

    def restore_recorder(self, checkpoint: Checkpoint) -> PageRecorder:
        """What report.html needs of the frames before ``checkpoint``; OutputError if it is missing or damaged."""
        folder = self.state.pictures(checkpoint.frames)
        return PageRecorder.restore(folder, self.labels.palette_array(), self.info.frame_rate)
