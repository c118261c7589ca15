"""Measure whole runs from file to files, and the cost of single results by leaving them out."""

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
from tfcseg.runs.result_options import ResultOptions
from tfcseg.weights.loading import LoadedModel

_WITHOUT = {
    "flow_consistency": ResultOptions(flow_consistency=False),
    "masks": ResultOptions(masks=False),
    "flow_consistency and masks": ResultOptions(flow_consistency=False, masks=False),
}
"""Results whose cost is measured, with options that leave them out."""


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


def run_ours(
    model: LoadedModel,
    options: InferenceOptions,
    source: Path,
    end_s: float,
    folder: Path,
    results: ResultOptions | None = None,
) -> int:
    """Run one of our contenders as ``tfcseg run`` does; returns the number of frames."""
    wanted = RunOptions(inference=options, end_s=end_s, results=results or ResultOptions())
    report = run_video(source, folder, model, wanted)
    return report.input.frames_decoded


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

    def ours(mode: str, results: ResultOptions | None = None) -> Callable[[Path], int]:
        return lambda folder: run_ours(
            model=contest.model,
            options=contest.in_mode(mode),
            source=clip.path,
            end_s=end_s,
            folder=folder,
            results=results,
        )

    runs |= {mode: ours(mode) for mode in (IMAGE, TFC) if mode in names}
    full = TFC if TFC in names else IMAGE
    runs |= {f"without {part}": ours(full, results) for part, results in _WITHOUT.items()}
    frames: dict[str, int] = {}

    def timed(name: str) -> float:
        with TemporaryDirectory(dir=contest.folder) as folder:
            synchronise(contest.model.device)
            started_s = time.perf_counter()
            frames[name] = runs[name](Path(folder))
            synchronise(contest.model.device)
            return 1000 * (time.perf_counter() - started_s) / frames[name]

    samples = alternate({name: lambda name=name: timed(name) for name in runs}, request.rounds, on_step=on_step)  # type: ignore[misc]
    found = {name: spread(values) for name, values in samples.items()}
    costs = {part: 100 * (1 - found[f"without {part}"].median / found[full].median) for part in _WITHOUT}
    speeds = {name: speed(found[name], frames[name]) for name in names}
    return {"end_to_end": speeds, "ratios": {"end_to_end": speed_ratios(speeds)}, "costs": costs}
