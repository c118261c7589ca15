"""Time the contenders: the network alone, from decoded frames to label maps, and whole runs from file to files.

They take turns after a warm-up, and all work of the device is included.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tfcseg.benchmark.contest import IMAGE, PLAIN, TFC, Contest
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

OnStep: TypeAlias = Callable[[int, int], None]
"""Called after each step with steps done, and steps in total."""

RATIOS = ((IMAGE, PLAIN), (TFC, PLAIN), (TFC, IMAGE))
"""Speed of the first over speed of the second, where both were measured."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of repeated measurements."""

    median: float
    low: float
    high: float
    samples: int


def spread(samples: Sequence[float]) -> Spread:
    """Median and range of at least one sample."""
    return Spread(statistics.median(samples), min(samples), max(samples), len(samples))


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of one contender: ``fps`` is that of the median time."""

    fps: float
    ms_per_frame: Spread
    frames: int


def alternate(
    tasks: Mapping[str, Callable[[], float]], rounds: int, *, on_step: OnStep = lambda done, total: None
) -> dict[str, list[float]]:
    """Run every task once to warm up, then ``rounds`` times in turn; returns what they measured, by task.

    Every second round is in reverse order, so that changes in the machine's speed affect all tasks equally.
    """
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    steps, done = (rounds + 1) * len(tasks), 0
    for number in range(rounds + 1):
        for name in list(tasks) if number % 2 == 0 else list(tasks)[::-1]:
            samples[name].append(tasks[name]())
            done += 1
            on_step(done, steps)
    return {name: measured[1:] for name, measured in samples.items()}  # the first round warms up


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its work, which runs asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure_model_only(contest: Contest, on_step: OnStep) -> dict[str, Any]:
    """Time preprocessing, network and labels on the clip's decoded frames: fields of `Benchmark`."""
    labels: dict[str, list[NDArray[np.uint8]]] = {}
    updated: list[float] = []

    def label(mode: str) -> int:
        frames = list(segment_with(contest.images, contest.model, contest.options_of(mode)))
        labels[mode] = [frame.labels for frame in frames]
        updated[:] = [frame.updated_fraction for frame in frames if frame.updated_fraction is not None] or updated
        return len(frames)

    tasks = {name: partial(label, name) for name in contest.contenders}
    compared = [(IMAGE, TFC)]
    if PLAIN in tasks:
        plain = contest.open_plain()
        compared += [(PLAIN, IMAGE)] if plain.has_same_weights else []

        def label_plainly(name: str) -> int:
            labels[name] = [plain.labels(image) for image in contest.images[: contest.request.plain_frames]]
            return len(labels[name])

        tasks[PLAIN] = partial(label_plainly, PLAIN)
    speeds = _speeds(contest, "model_only", tasks, on_step)
    agreement = {}
    for first, second in compared:
        if first in labels and second in labels:
            same = [float(np.mean(a == b)) for a, b in zip(labels[first], labels[second], strict=False)]
            agreement[f"{first}|{second}"] = 100 * float(np.mean(same))
    share = 100 * float(np.mean(updated)) if updated else None
    return {**speeds, "agreement": agreement, "updated_fraction": share}


def measure_end_to_end(contest: Contest, on_step: OnStep) -> dict[str, Any]:
    """Time whole runs on the beginning of the clip: fields of `Benchmark`."""
    plain = contest.open_plain() if PLAIN in contest.contenders else None

    def run(name: str) -> int:
        place = (contest.request.video, contest.end_s(name), Path(mkdtemp(dir=contest.folder)))
        if name == PLAIN and plain is not None:
            return run_plain(plain, contest.model.labels, *place)
        return run_ours(contest.model, contest.options_of(name), *place)

    return _speeds(contest, "end_to_end", {name: partial(run, name) for name in contest.contenders}, on_step)


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
    speeds: dict[str, Speed] = {}
    for name, times in samples.items():
        each = spread(times)
        speeds[name] = Speed(1000 / each.median, each, frames[name])
    ratios = {f"{a}/{b}": speeds[a].fps / speeds[b].fps for a, b in RATIOS if {a, b} <= speeds.keys()}
    return {part: speeds, "ratios": {part: ratios}}
