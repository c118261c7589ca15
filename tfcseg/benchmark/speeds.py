"""Time the contenders: the network alone, from decoded frames to label maps, and whole runs from file to files.

They take turns after a warm-up, and all work of the device is included.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tfcseg.benchmark.contest import IMAGE, PLAIN, TFC, Contest, contenders, open_plain
from tfcseg.benchmark.plain import PlainSegformer
from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import class_shares, overlay
from tfcseg.inference.segment import segment_with
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.masks import MaskWriter
from tfcseg.media.reader import open_frames
from tfcseg.media.writer import VideoWriter
from tfcseg.model.options import InferenceOptions
from tfcseg.runs.options import RunOptions
from tfcseg.runs.pipeline import run_video
from tfcseg.weights.loading import LoadedModel

_Labels: TypeAlias = list[NDArray[np.uint8]]

OnStep: TypeAlias = Callable[[int, int], None]
"""Called after each step with steps done, and steps in total."""

RATIOS = (("image", "plain"), ("tfc", "plain"), ("tfc", "image"))
"""Speed of the first over speed of the second, where both were measured."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of repeated measurements."""

    median: float
    low: float
    high: float
    samples: int


def spread(samples: Iterable[float]) -> Spread:
    """Median and range of at least one sample."""
    values = sorted(samples)
    return Spread(statistics.median(values), values[0], values[-1], len(values))


def alternate(
    tasks: Mapping[str, Callable[[], float]], rounds: int, *, on_step: OnStep = lambda done, total: None
) -> dict[str, list[float]]:
    """Run every task once to warm up, then ``rounds`` times in turn; returns what they measured, by task.

    Every second round is in reverse order, so that changes in the machine's speed affect all tasks equally.
    """
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    steps, done = (rounds + 1) * len(tasks), 0
    for number in range(rounds + 1):
        names = list(tasks) if number % 2 == 0 else list(tasks)[::-1]
        for name in names:
            measured = tasks[name]()
            done += 1
            on_step(done, steps)
            if number:  # round 0 is the warm-up
                samples[name].append(measured)
    return samples


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its work, which runs asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of one contender: ``fps`` is that of the median time."""

    fps: float
    ms_per_frame: Spread
    frames: int


def speed_ratios(speeds: Mapping[str, Speed]) -> dict[str, float]:
    """Speed of the first over that of the second, for the pairs of ``RATIOS``, as ``tfc/plain``."""
    pairs = [pair for pair in RATIOS if speeds.keys() >= set(pair)]
    return {f"{first}/{second}": speeds[first].fps / speeds[second].fps for first, second in pairs}


def measure_model_only(contest: Contest, on_step: OnStep) -> dict[str, Any]:
    """Time preprocessing, network and labels on the clip's decoded frames: fields of `Benchmark`."""
    images = contest.images
    labels: dict[str, _Labels] = {}
    updated: list[float] = []
    compared = [(IMAGE, TFC)]
    tasks: dict[str, Callable[[], int]] = {}

    def label(mode: str) -> int:
        frames = list(segment_with(images, contest.model, contest.in_mode(mode)))
        labels[mode] = [frame.labels for frame in frames]
        updated[:] = [frame.updated_fraction for frame in frames if frame.updated_fraction is not None] or updated
        return len(frames)

    if PLAIN in contenders(contest):
        plain = open_plain(contest)
        compared += [(PLAIN, IMAGE)] if plain.has_same_weights else []

        def label_plainly() -> int:
            labels[PLAIN] = [plain.labels(image) for image in images[: contest.request.plain_frames]]
            return len(labels[PLAIN])

        tasks[PLAIN] = label_plainly
    tasks |= {mode: partial(label, mode) for mode in contenders(contest) if mode != PLAIN}
    return {
        **_speeds(contest, "model_only", tasks, on_step),
        "agreement": _agreement(labels, compared),
        "updated_fraction": 100 * float(np.mean(updated)) if updated else None,
    }


def measure_end_to_end(contest: Contest, on_step: OnStep) -> dict[str, Any]:
    """Time whole runs on the beginning of the clip: fields of `Benchmark`."""
    runs: dict[str, Callable[[Path, float, Path], int]] = {}
    for name in contenders(contest):
        if name == PLAIN:
            runs[name] = partial(run_plain, open_plain(contest), contest.model.labels)
        else:
            runs[name] = partial(run_ours, contest.model, contest.in_mode(name))

    def run(name: str) -> int:
        return runs[name](contest.request.video, contest.end_s(name), Path(mkdtemp(dir=contest.folder)))

    return _speeds(contest, "end_to_end", {name: partial(run, name) for name in runs}, on_step)


def run_plain(plain: PlainSegformer, labels: LabelSet, source: Path, end_s: float, folder: Path) -> int:
    """Run plain SegFormer from file to files, one frame after the other; returns the number of frames.

    It uses our decoder, overlay, legend and writers, which run in parallel as usual. It computes no stability and
    copies no sound, which is in its favour.
    """
    palette = labels.palette_array()
    with open_frames(source, end_s=end_s) as frames:
        size = (frames.info.height, frames.info.width)
        legend = Legend(labels, size)
        with (
            VideoWriter(folder / "overlay.mp4", size=size, frame_rate=frames.info.frame_rate) as video,
            MaskWriter(folder / "masks", palette) as masks,
        ):
            for frame in frames:
                found = plain.labels(frame.image)
                masks.write(frame.index, found)
                picture = overlay(frame.image, found, palette)
                legend.draw(picture, class_shares(found, len(labels)))
                video.write(picture)
        return frames.frames_decoded


def run_ours(model: LoadedModel, options: InferenceOptions, source: Path, end_s: float, folder: Path) -> int:
    """Run one of our contenders as ``tfcseg run`` does; returns the number of frames."""
    return run_video(source, folder, model, RunOptions(inference=options, end_s=end_s)).input.frames_decoded


def _speeds(contest: Contest, part: str, tasks: Mapping[str, Callable[[], int]], on_step: OnStep) -> dict[str, Any]:
    """Time ``tasks``, which return their numbers of frames; fields of `Benchmark` for ``part``."""
    frames: dict[str, int] = {}

    def time_ms(name: str) -> float:
        synchronise(contest.model.device)
        started_s = time.perf_counter()
        frames[name] = tasks[name]()
        synchronise(contest.model.device)
        return 1000 * (time.perf_counter() - started_s) / frames[name]

    samples = alternate({name: partial(time_ms, name) for name in tasks}, contest.request.rounds, on_step=on_step)
    times = {name: spread(values) for name, values in samples.items()}
    speeds = {name: Speed(1000 / each.median, each, frames[name]) for name, each in times.items()}
    return {part: speeds, "ratios": {part: speed_ratios(speeds)}}


def _agreement(labels: Mapping[str, _Labels], pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    found = {}
    for first, second in pairs:
        if first in labels and second in labels:
            same = [float(np.mean(a == b)) for a, b in zip(labels[first], labels[second], strict=False)]
            found[f"{first}|{second}"] = 100 * float(np.mean(same))
    return found
