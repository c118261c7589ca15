"""Label single frames of videos with the network itself, as targets for adaptation, and keep them on disk.

Layout (whatever is deleted is made again):

    000_00/00000.jpg …     a run of frames of a video at about CLIP_RATE_HZ, at most of the network's input size
    000_00/labels.npy      (T, h, w, K) uint8 probabilities at the grid of the logits, averaged over time
    000_00/still.npy       (h, w, K) of the first frame, not averaged
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import shrink
from tfcseg.errors import DataError, UsageError
from tfcseg.files import identity, make_folder
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.media.frames import Frame, Image
from tfcseg.media.reader import probe, read_frames
from tfcseg.media.source import Source
from tfcseg.options import OnStep
from tfcseg.report.moments import encode_jpeg
from tfcseg.spelling import count_of
from tfcseg.training.labelling import CLIP_RATE_HZ, Taught, save_frame, save_labels, steady_labels

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

    UsageError for a video in both lists, DataError or InputError for one too short, of unknown length or unreadable.
    """
    trained_on = {identity(video) for video in videos} - {None}
    for video in validate:
        if identity(video) in trained_on:
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
    Source.of(video).check_readable_again("adapt reads every video several times")
    info = probe(video)
    if info.frames_declared is None:
        raise DataError(f"{video} does not state its length; copy it into another file with ffmpeg first")
    if info.frames_declared < parts * LEAST_FRAMES:
        frames = count_of(info.frames_declared, "frame")
        raise DataError(f"{video} has {frames}; give videos of {parts * LEAST_FRAMES} or more")
    return Part(video, 0, info.frames_declared, float(info.frame_rate))


RUN = 8
"""Frames of a run, enough for an interval of every other frame."""

FRAMES = 240
"""Labelled frames of all videos together, but at least a run of each."""


def label_parts(
    network: IntervalNetwork, parts: Sequence[Part], folder: Path, on_progress: OnStep
) -> tuple[list[Taught], list[Taught]]:
    """Label runs of ``parts`` with ``network``: returns first frames as stills, and runs as clips.

    ``on_progress`` counts runs. Runs that are already labelled are skipped.
    """
    plan = [_runs(part, max(1, FRAMES // (RUN * len(parts)))) for part in parts]
    total, done = sum(map(len, plan)), 0
    stills: list[Taught] = []
    clips: list[Taught] = []
    for number, (part, runs) in enumerate(zip(parts, plan, strict=True)):
        folders = [folder / f"{number:03}_{run:02}" for run in range(len(runs))]
        if not all((each / "labels.npy").exists() for each in folders):
            for run, images in enumerate(_read_runs(part, runs, network.options.size)):
                if not (folders[run] / "labels.npy").exists():
                    _label_run(network, images, folders[run])
                on_progress(done + run + 1, total)
        done += len(runs)
        for each in folders:
            frames = tuple(sorted(each.glob("*.jpg")))
            if frames:  # a video may have fewer frames than it states
                clips.append(Taught(part.video, each / "labels.npy", frames))
                stills.append(Taught(frames[0], each / "still.npy"))
    return stills, clips


def shrunk(image: Image, size: int) -> Image:
    """Shrink an image to a short side of ``size`` at most."""
    scale = min(1.0, size / min(image.shape[:2]))
    return image if scale == 1 else shrink(image, (round(image.shape[0] * scale), round(image.shape[1] * scale)))


def probabilities(network: IntervalNetwork, image: Image) -> NDArray[np.uint8]:
    """Class probabilities (h, w, K) at the grid of the logits, 255 = certain."""
    soft = network.logits([image])[0].float().softmax(dim=0).mul(255).round().byte()
    return np.asarray(soft.permute(1, 2, 0).cpu().numpy(), np.uint8)


def _runs(part: Part, count: int) -> list[list[int]]:
    """Frame numbers of at most ``count`` runs, evenly spread."""
    step = max(1, min(round(part.rate_hz / CLIP_RATE_HZ), len(part) // RUN))
    return [list(range(run.start, run.stop, step)) for run in part.excerpts(count, RUN * step)]


def _read_runs(part: Part, runs: Sequence[Sequence[int]], size: int) -> Iterator[list[Image]]:
    """Yield the images of each run, all of which have as many, in the order of the video."""
    images: list[Image] = []
    wanted = {index for run in runs for index in run}
    for index, frame in zip(range(part.start, runs[-1][-1] + 1), part.frames(), strict=False):
        if index in wanted:
            images.append(shrunk(frame.image, size))
        if len(images) == len(runs[0]):
            yield images
            images = []


def _label_run(network: IntervalNetwork, images: Sequence[Image], folder: Path) -> None:
    make_folder(folder)
    for number, image in enumerate(images):
        save_frame(folder, number, encode_jpeg(image, 95))
    soft = np.stack([probabilities(network, image) for image in images])
    save_labels(folder / "still.npy", soft[0])
    save_labels(folder / "labels.npy", steady_labels(images, soft))
