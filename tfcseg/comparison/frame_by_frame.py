"""Compare the labels of several modes frame by frame: agreement, a video, pictures of differences."""

from __future__ import annotations

import dataclasses
import itertools
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.comparison.masks import MaskFolder
from tfcseg.comparison.result import Difference
from tfcseg.drawing.pictures import RowPainter, write_picture
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Frame, VideoInfo
from tfcseg.media.reader import VideoWriter
from tfcseg.report.moments import greatest_moments

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
    masks: Mapping[str, MaskFolder]
    shown: Sequence[str]
    """One or two of the modes: those in the pictures."""
    titles: Sequence[str]
    """What the shown modes are called there."""

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
