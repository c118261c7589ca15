"""Clips for benchmarks: the beginning of a video."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

from tfcseg.errors import InputError
from tfcseg.media.frames import Image
from tfcseg.media.reader import open_frames


@dataclass(frozen=True, slots=True)
class Clip:
    """Decoded frames to measure the network alone, and their file for whole runs."""

    name: str
    """Name of the file without its folder, which results do not state."""
    path: Path
    images: tuple[Image, ...]
    """The first frames, decoded."""
    first_time_s: float
    frame_rate: Fraction

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.images[0].shape[:2]
        return height, width

    def end_s(self, frames: int) -> float:
        """End of a range of the first ``frames`` frames: half a frame before the next one."""
        return self.first_time_s + (frames - 0.5) / float(self.frame_rate)


def read_clip(path: Path, frames: int) -> Clip:
    """Read the first ``frames`` frames of a video, or all if it has fewer; InputError if it cannot be read."""
    with open_frames(path) as source:
        decoded = list(islice(source, frames))
        images = tuple(frame.image for frame in decoded)
        if len({image.shape for image in images}) > 1:
            raise InputError(f"{path}: the size of its frames changes; choose another clip")
        return Clip(path.name, path, images, decoded[0].time_s, source.info.frame_rate)
