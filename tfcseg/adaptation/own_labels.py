"""Label single frames of videos with the network itself, as targets for adaptation, and keep them on disk.

Layout (whatever is deleted is made again):

    000_00/00000.jpg …     a run of frames of a video at about CLIP_RATE_HZ, at most of the network's input size
    000_00/labels.npy      (T, h, w, K) uint8 probabilities at the grid of the logits, averaged over time
    000_00/still.npy       (h, w, K) of the first frame, not averaged
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.adaptation.parts import Part
from tfcseg.drawing.render import shrink
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.media.frames import Image
from tfcseg.training.labelling import CLIP_RATE_HZ, Clip, Still, save_labels, steady_labels

RUN = 8
"""Frames of a run, enough for an interval of every other frame."""

FRAMES = 240
"""Labelled frames of all videos together, but at least a run of each."""

OnProgress = Callable[[int, int], None]


def label_parts(
    network: IntervalNetwork, parts: Sequence[Part], folder: Path, on_progress: OnProgress
) -> tuple[list[Still], list[Clip]]:
    """Label runs of ``parts`` with ``network``: returns first frames as stills, and runs as clips.

    ``on_progress`` counts runs. Runs that are already labelled are skipped.
    """
    plan = [_runs(part, max(1, FRAMES // (RUN * len(parts)))) for part in parts]
    total, done = sum(map(len, plan)), 0
    stills: list[Still] = []
    clips: list[Clip] = []
    for number, (part, runs) in enumerate(zip(parts, plan, strict=True)):
        folders = [folder / f"{number:03}_{run:02}" for run in range(len(runs))]
        if not all((each / "labels.npy").exists() for each in folders):
            for each, images in zip(folders, _read_runs(part, runs, network.options.size), strict=False):
                _label_run(network, images, each)
                done += 1
                on_progress(done, total)
        for each in folders:
            frames = tuple(sorted(each.glob("*.jpg")))
            if frames:  # a video may have fewer frames than it states
                clips.append(Clip(part.video, frames, each / "labels.npy"))
                stills.append(Still(frames[0], each / "still.npy"))
    return stills, clips


def shrunk(image: Image, size: int) -> Image:
    """Shrink an image to a short side of ``size`` at most."""
    scale = min(1.0, size / min(image.shape[:2]))
    return image if scale == 1 else shrink(image, (round(image.shape[0] * scale), round(image.shape[1] * scale)))


def probabilities(network: IntervalNetwork, image: Image) -> NDArray[np.uint8]:
    """Class probabilities (h, w, K) at the grid of the logits, 255 = certain."""
    soft = network.logits(image)[0].float().softmax(dim=0).mul(255).round().byte()
    return np.asarray(soft.permute(1, 2, 0).cpu().numpy(), np.uint8)


def _runs(part: Part, count: int) -> list[list[int]]:
    """Frame numbers of at most ``count`` runs, evenly spread."""
    step = max(1, min(round(part.rate_hz / CLIP_RATE_HZ), len(part) // RUN))
    return [list(range(run.start, run.stop, step)) for run in part.excerpts(count, RUN * step)]


def _read_runs(part: Part, runs: Sequence[Sequence[int]], size: int) -> Iterator[list[Image]]:
    """Yield the images of each run."""
    waiting = iter(runs)
    wanted, images = set(next(waiting)), list[Image]()
    for index, frame in enumerate(part.frames(), start=part.start):
        if index in wanted:
            images.append(shrunk(frame.image, size))
            if len(images) == len(wanted):
                yield images
                wanted, images = set(next(waiting, ())), []
                if not wanted:
                    return


def _label_run(network: IntervalNetwork, images: Sequence[Image], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        (folder / f"{number:05d}.jpg").write_bytes(jpeg.tobytes())
    soft = np.stack([probabilities(network, image) for image in images])
    save_labels(folder / "still.npy", soft[0])
    save_labels(folder / "labels.npy", steady_labels(images, soft))
