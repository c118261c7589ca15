"""Which frames of the given videos teach, and which measure what was learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tfcseg.errors import DataError, UsageError
from tfcseg.files import identity
from tfcseg.media.frames import Frame
from tfcseg.media.reader import probe, read_frames

HELD_BACK = 0.2
"""Share of every video, its end, that measures and does not teach, unless there are videos for that."""

LEAST_FRAMES = 12
"""Of a part: VC8 needs nine."""


@dataclass(frozen=True, slots=True)
class Part:
    """Frames ``start`` to ``stop`` (without it) of a video or a folder of images."""

    video: Path
    start: int
    stop: int
    rate_hz: float

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return str(self.video)

    def frames(self) -> Iterator[Frame]:
        """Read it. A video that ends before its container says gives fewer frames."""
        return islice(read_frames(self.video), self.start, self.stop)

    def excerpts(self, count: int, length: int) -> list[Part]:
        """At most ``count`` parts of it of ``length`` frames at most, evenly spread."""
        length = min(length, len(self))
        count = max(1, min(count, len(self) // length))
        room = len(self) - length
        starts = [self.start + (room * number // (count - 1) if count > 1 else 0) for number in range(count)]
        return [Part(self.video, start, start + length, self.rate_hz) for start in starts]


def split_videos(videos: Sequence[Path], validate: Sequence[Path]) -> tuple[list[Part], list[Part]]:
    """(teaching parts, measuring parts): with ``validate`` these videos measure, else the end of each of ``videos``.

    UsageError for a video that is to do both, DataError for one that is too short or of unknown length, InputError for
    one that cannot be read.
    """
    for video in validate:
        if identity(video) in map(identity, videos):
            raise UsageError(f"--validate {video} is one of the videos that teach; give another one")
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
        raise DataError(f"{video} does not say how long it is; copy it into another file with ffmpeg first")
    if info.frames_declared < parts * LEAST_FRAMES:
        raise DataError(f"{video} has {info.frames_declared} frames; give videos of {parts * LEAST_FRAMES} or more")
    return Part(video, 0, info.frames_declared, float(info.frame_rate))
