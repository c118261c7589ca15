"""Masks of a video as PNG files: ours, or another program's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.evaluation.result import percent
from tfcseg.evaluation.stability import StabilityScores
from tfcseg.labels.label_sets import NO_CLASS, LabelSet
from tfcseg.media.frames import Frame
from tfcseg.media.mask_folder import list_masks
from tfcseg.media.masks import read_mask


class MaskFolder:
    """``directory/*.png`` in natural order, one per frame of a video; value = class index, 255 = none."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._paths = list_masks(self.directory)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, frame: Frame, labels: LabelSet) -> NDArray[np.uint8]:
        """(H, W) class indices of ``frame``; DataError if there are none, or they do not match the
        frame or ``labels``."""
        if frame.index >= len(self):
            raise DataError(f"{self.directory}: {len(self)} masks, but the video has more frames; give one per frame")
        path = self._paths[frame.index]
        mask = read_mask(path)
        if mask.shape != frame.image.shape[:2]:
            raise DataError(f"{path}: the mask is {mask.shape}, but the frames are {frame.image.shape[:2]}")
        is_stray = (mask >= len(labels)) & (mask != NO_CLASS)
        if is_stray.any():
            raise DataError(
                f"{path}: value {mask[is_stray].min()} is not a class of {labels.name!r}; "
                f"classes go from 0 to {len(labels) - 1}, {NO_CLASS} = none"
            )
        return mask

    def measure(self, frames: Iterable[Frame], labels: LabelSet, *, flow_consistency: bool) -> dict[str, float | None]:
        """Label change and flow consistency in percent; DataError unless there is exactly one mask per frame."""
        scores = StabilityScores(use_flow=flow_consistency)
        count = 0
        for frame in frames:
            count += 1
            scores.update(frame.image, self.read(frame, labels))
        if count != len(self):
            raise DataError(f"{self.directory}: {len(self)} masks for {count} frames; give one per frame")
        return {
            "label_change": percent(scores.label_change.value),
            "flow_consistency": percent(scores.flow_consistency.value),
        }
