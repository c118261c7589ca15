"""Divide videos into frames for training and frames for measuring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tfcseg.errors import DataError, UsageError
from tfcseg.files import identity
from tfcseg.media.frames import Frame
from tfcseg.media.reader import probe, read_frames
from tfcseg.spelling import count_of

HELD_BACK = 0.2
"""Share of every video, at its end, that is held out for measuring if no other videos are given."""

LEAST_FRAMES = 12
"""Fewest frames of a part; VC8 needs nine."""


@dataclass(frozen=True, slots=True)
class Part:
    """Frames ``start`` to ``stop`` (exclusive) of a video or a folder of images."""

    video: Path
    start: int
    stop: int
    rate_hz: float

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return str(self.video)

    def frames(self) -> Iterator[Frame]:
        """Read the frames; fewer if the video has fewer than its container states."""
        return islice(read_frames(self.video), self.start, self.stop)

    def excerpts(self, count: int, length: int) -> list[Part]:
        """Make at most ``count`` excerpts of at most ``length`` frames, evenly spread."""
        length = min(length, len(self))
        count = max(1, min(count, len(self) // length))
        room = len(self) - length
        starts = [self.start + (room * number // (count - 1) if count > 1 else 0) for number in range(count)]
        return [Part(self.video, start, start + length, self.rate_hz) for start in starts]


def split_videos(videos: Sequence[Path], validate: Sequence[Path]) -> tuple[list[Part], list[Part]]:
    """Parts for training and parts for measuring, which are ``validate`` or else the ends of ``videos``.

    Raises UsageError for a video in both lists, DataError for one that is too short or of unknown length, InputError
    for one that cannot be read.
    """
    for video in validate:
        if identity(video) in map(identity, videos):
            raise UsageError(f"--validate {video} is also trained on; give another video")
    whole = [_whole(video, 1 if validate else 2) for video in videos]
    if validate:
        return whole, [_whole(video, 1) for video in validate]
    teaching, measuring = [], []
    for part in whole:
        cut = part.stop - max(LEAST_FRAMES, round(HELD_BACK * part.stop))
        teaching.append(Part(part.video, 0, cut, part.rate_hz))
        measuring.append(Part(part.video, cut, part.stop, part.rate_hz))
    return teaching, measuring


def _whole(video: Path, parts: int) -> Part:
    info = probe(video)
    if info.frames_declared is None:
        raise DataError(f"{video} does not state its length; copy it into another file with ffmpeg first")
    if info.frames_declared < parts * LEAST_FRAMES:
        frames = count_of(info.frames_declared, "frame")
        raise DataError(f"{video} has {frames}; give videos of {parts * LEAST_FRAMES} or more")
    return Part(video, 0, info.frames_declared, float(info.frame_rate))
