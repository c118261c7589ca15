"""Compare labels of several modes, or other programs' masks, frame by frame: agreement, a video, pictures."""

from __future__ import annotations

import dataclasses
import itertools
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.comparison.result import Difference
from tfcseg.drawing.pictures import RowPainter, write_picture
from tfcseg.errors import DataError
from tfcseg.exports.labelled_video import read_labels
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Frame, VideoInfo
from tfcseg.media.mask_folder import list_masks
from tfcseg.media.writer import VideoWriter
from tfcseg.metrics.consistency import StabilityScores
from tfcseg.report.moments import greatest_moments


class ClassMasks:
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


MAX_PICTURES = 6
PICTURES_APART_S = 1.0
PICTURE_PATTERN = "frame_*.png"


@dataclass(slots=True)
class FrameComparison:
    """Result of one pass; a few bytes per frame."""

    same: dict[str, float] = field(default_factory=dict)
    """``first|second`` -> sum over frames of the share of pixels with the same label in both."""
    times_s: array[float] = field(default_factory=lambda: array("d"))
    differing: array[float] = field(default_factory=lambda: array("d"))
    """Per frame: share of the pixels whose labels differ between the two shown modes; 0 if one is shown."""

    def agreement(self) -> dict[str, float]:
        """``first|second`` -> percentage of all pixels with the same label in both."""
        return {pair: 100 * total / len(self.times_s) for pair, total in self.same.items()}


@dataclass(frozen=True, slots=True)
class FrameComparer:
    """Reads frames together with the labels of several modes or other programs."""

    labels: LabelSet
    masks: Mapping[str, ClassMasks]
    shown: Sequence[str]
    """One or two of the modes: those in the pictures."""
    titles: Sequence[str]
    """Titles of the shown modes."""

    def compare(self, frames: Iterable[Frame], info: VideoInfo, video: Path) -> FrameComparison:
        """Read all ``frames`` and write them beside the shown modes as ``video``."""
        size = (info.height, info.width)
        painter = RowPainter(self.labels, size, self.titles)
        found = FrameComparison()
        with VideoWriter(video, size=painter.row_size, frame_rate=info.frame_rate) as writer:
            for frame in frames:
                labels = {mode: folder.read(frame, self.labels) for mode, folder in self.masks.items()}
                for (a, one), (b, other) in itertools.combinations(labels.items(), 2):
                    pair = f"{a}|{b}"
                    found.same[pair] = found.same.get(pair, 0.0) + _same(one, other)
                results = [labels[mode] for mode in self.shown]
                found.times_s.append(frame.time_s)
                found.differing.append(1 - _same(*results) if len(results) == 2 else 0.0)
                writer.write(painter.draw(frame.image, results))
        return found

    def draw_greatest(
        self, found: FrameComparison, read: Callable[[float], Frame], folder: Path
    ) -> tuple[Difference, ...]:
        """Write pictures of the frames that differ most into ``folder``; ``read`` gives the frame shown at a time."""
        written = []
        moments = greatest_moments(found.times_s, found.differing, count=MAX_PICTURES, apart_s=PICTURES_APART_S)
        for index in moments:
            frame = dataclasses.replace(read(found.times_s[index]), index=index)
            results = [self.masks[mode].read(frame, self.labels) for mode in self.shown]
            # A painter for each: legends follow a video, and these frames are not consecutive.
            painter = RowPainter(self.labels, results[0].shape, self.titles, has_difference=True)
            path = folder / f"frame_{index:08d}.png"
            write_picture(path, painter.draw(frame.image, results))
            differing = 100 * found.differing[index]
            written.append(Difference(index, frame.time_s, differing, f"{folder.name}/{path.name}"))
        return tuple(written)


def _same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Share of the pixels whose labels are equal."""
    return float(np.count_nonzero(one == other) / one.size)
