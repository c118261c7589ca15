"""Measure whole runs from file to files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tfcseg.benchmark.contest import IMAGE, PLAIN, TFC, Contest, contenders, open_plain
from tfcseg.benchmark.plain import PlainSegformer
from tfcseg.benchmark.timing import alternate, speed, speed_ratios, spread, synchronise
from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import class_shares, overlay
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.masks import MaskWriter
from tfcseg.media.reader import open_frames
from tfcseg.media.writer import VideoWriter
from tfcseg.model.options import InferenceOptions
from tfcseg.runs.options import RunOptions
from tfcseg.runs.pipeline import run_video
from tfcseg.weights.loading import LoadedModel


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


def measure_end_to_end(contest: Contest, on_step: Callable[[int, int], None]) -> dict[str, Any]:
    """Time whole runs of all contenders on the beginning of the clip: fields of `Benchmark`."""
    clip, request = contest.clip, contest.request
    names = contenders(contest)
    runs: dict[str, Callable[[Path], int]] = {}
    if PLAIN in names:
        plain = open_plain(contest)
        plain_end_s = clip.end_s(min(request.plain_frames, request.clip_frames))
        runs[PLAIN] = lambda folder: run_plain(plain, contest.model.labels, clip.path, plain_end_s, folder)
    end_s = clip.end_s(request.clip_frames)

    def ours(mode: str) -> Callable[[Path], int]:
        return lambda folder: run_ours(contest.model, contest.in_mode(mode), clip.path, end_s, folder)

    runs |= {mode: ours(mode) for mode in (IMAGE, TFC) if mode in names}
    frames: dict[str, int] = {}

    def timed(name: str) -> float:
        with TemporaryDirectory(dir=contest.folder) as folder:
            synchronise(contest.model.device)
            started_s = time.perf_counter()
            frames[name] = runs[name](Path(folder))
            synchronise(contest.model.device)
            return 1000 * (time.perf_counter() - started_s) / frames[name]

    samples = alternate({name: lambda name=name: timed(name) for name in runs}, request.rounds, on_step=on_step)  # type: ignore[misc]
    speeds = {name: speed(spread(values), frames[name]) for name, values in samples.items()}
    return {"end_to_end": speeds, "ratios": {"end_to_end": speed_ratios(speeds)}}
