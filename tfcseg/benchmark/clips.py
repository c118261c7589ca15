"""Clips for benchmarks: the beginning of a video, or synthetic frames.

Shapes: H, W image height and width.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from tfcseg.errors import InputError
from tfcseg.media.ffmpeg import ffmpeg_path
from tfcseg.media.frames import FrameSource, Image
from tfcseg.media.reader import open_frames
from tfcseg.media.writer import VideoWriter

SYNTHETIC = "synthetic"
SYNTHETIC_RATE = Fraction(30)
_PAN_PX = 2  # per frame
_DISC_PX = (9, -7, 5)  # per frame, of each disc
_REORDERED = 64
"""More frames than any encoder reorders."""
_COLOURS = ((228, 60, 50), (40, 120, 220), (240, 200, 60))


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

    def open(self, frames: int) -> FrameSource:
        """Open the first ``frames`` frames."""
        return open_frames(self.path, end_s=self.end_s(frames))

    def end_s(self, frames: int) -> float:
        """End of a range of the first ``frames`` frames: half a frame before the next one."""
        return self.first_time_s + (frames - 0.5) / float(self.frame_rate)


def read_clip(path: Path, frames: int, *, name: str | None = None) -> Clip:
    """Read the first ``frames`` frames of a video, or all if it has fewer; InputError if it cannot be read."""
    with open_frames(path) as source:
        decoded = list(islice(source, frames))
        images = tuple(frame.image for frame in decoded)
        if len({image.shape for image in images}) > 1:
            raise InputError(f"{path}: the size of its frames changes; choose another clip")
        return Clip(name or path.name, path, images, decoded[0].time_s, source.info.frame_rate)


def make_clip(path: Path, size: tuple[int, int], frames: int) -> Path:
    """Write a synthetic clip of ``frames`` frames of ``size`` (H, W) to ``path`` (.mp4); returns the path."""
    with VideoWriter(path, size=size, frame_rate=SYNTHETIC_RATE) as writer:
        for image in synthetic_images(frames, size):
            writer.write(image)
    return path


def synthetic_images(frames: int, size: tuple[int, int]) -> Iterator[Image]:
    """Yield (H, W, 3) pictures, always the same: a camera pans over a textured scene, and three discs cross it."""
    height, width = size
    scene = _scene(height, width + _PAN_PX * (frames - 1))
    for number in range(frames):
        image = np.ascontiguousarray(scene[:, _PAN_PX * number : _PAN_PX * number + width])
        for index, (speed, colour) in enumerate(zip(_DISC_PX, _COLOURS, strict=True)):
            x = (width * (index + 1) // 4 + speed * number) % width
            cv2.circle(image, (x, height * (2 * index + 3) // 10), height // 10, colour, -1, cv2.LINE_AA)
        yield image


def _scene(height: int, width: int) -> Image:
    """Noise at several scales, stronger at coarse ones, as in photographs."""
    random = np.random.default_rng(5)
    scene = np.full((height, width, 3), 128, np.float32)
    for cell, strength in ((96, 60.0), (24, 30.0), (6, 12.0)):
        coarse = random.standard_normal((height // cell + 2, width // cell + 2, 3), np.float32) * strength
        scene += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(scene.clip(0, 255), dtype=np.uint8)


def repeat_clip(source: Path, target: Path, frames: int) -> Path:
    """Repeat ``source`` without re-encoding until ``target`` has more than ``frames`` frames."""
    arguments = ["-v", "error", "-y", "-stream_loop", "-1", "-i", f"file:{source}"]
    # Frames are cut in coding order, so near the end some frames are missing between others.
    arguments += ["-frames:v", str(frames + _REORDERED), "-c", "copy", "-an", f"file:{target}"]
    done = subprocess.run(
        [ffmpeg_path(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True
    )
    if done.returncode:
        raise InputError(f"{source}: cannot be repeated: {' '.join(done.stderr.split())}")
    return target
