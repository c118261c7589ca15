"""Masks of a video as PNG files: ours, or another program's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.evaluation.stability import StabilityScores
from tfcseg.exports.labelled_video import read_labels
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Frame
from tfcseg.media.mask_folder import list_masks


class MaskFolder:
    """``directory/*.png`` in natural order, one per frame of a video; value = class index, 255 = none."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._paths = list_masks(self.directory)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, frame: Frame, labels: LabelSet) -> NDArray[np.uint8]:
        """(H, W) class indices of ``frame``; DataError if there are none, or not of its size or ``labels``."""
        if frame.index >= len(self):
            raise DataError(f"{self.directory}: {len(self)} masks, but the video has more frames; give one per frame")
        height, width = frame.image.shape[:2]
        return read_labels(self._paths[frame.index], (height, width), labels)

    def measure(self, frames: Iterable[Frame], labels: LabelSet, *, flow_consistency: bool) -> dict[str, float | None]:
        """Label change and flow consistency in percent; DataError unless there is exactly one mask per frame."""
        scores = StabilityScores(use_flow=flow_consistency)
        count = 0
        for frame in frames:
            count += 1
            scores.update(frame.image, self.read(frame, labels))
        if count != len(self):
            raise DataError(f"{self.directory}: {len(self)} masks for {count} frames; give one per frame")
        return scores.percentages()
