"""Measure the machine's limits (decoding, encoding, arithmetic) and the time around the network.

Shapes: H W source image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from tfcseg.benchmark.contest import IMAGE, PLAIN, TFC, Contest, open_plain
from tfcseg.benchmark.plain import has_transformers
from tfcseg.benchmark.timing import Spread, alternate, spread, timed_ms
from tfcseg.comparison.flops import FLOPS_FACTS, count_flops, count_gflops
from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import class_shares, overlay
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.media.frames import Image
from tfcseg.media.masks import MaskWriter
from tfcseg.media.writer import VideoWriter
from tfcseg.metrics.consistency import ConsistencyMeter
from tfcseg.model.ops.fused import apply_linear

_MATRIX = {"cpu": 2048, "cuda": 8192, "mps": 4096}
"""Side of the square matrices for the largest arithmetic rate: large enough to use the whole device."""

_PRODUCTS = 5


def decode_only(contest: Contest) -> int:
    """Decode the clip as a run does; returns the number of frames."""
    with contest.clip.open(contest.request.clip_frames) as frames:
        return sum(1 for _ in frames)


def decode_and_encode(contest: Contest) -> int:
    """Decode and encode the clip without a network; returns the number of frames."""
    with contest.clip.open(contest.request.clip_frames) as frames:
        _encode(contest, (frame.image for frame in frames))
        return frames.frames_decoded


def matrix_gflops(device: torch.device, precision: torch.dtype, side: int | None = None) -> float:
    """Largest rate of matrix products on this device in this precision, in GFLOP/s.

    Computed by PyTorch and like the network's layers, whichever is faster.
    """
    side = side or _MATRIX.get(device.type, _MATRIX["cpu"])
    layer = nn.Linear(side, side, bias=False, device=device, dtype=precision)
    one = torch.randn(side, side, device=device).to(precision)
    with torch.inference_mode():
        works = (lambda: one @ layer.weight, lambda: apply_linear(one, layer))
        times_ms = [timed_ms(work, device) for _ in range(1 + _PRODUCTS) for work in works][2:]  # the first are warm-up
    return 2 * side**3 / min(times_ms) / 1e6


def measure_limits(contest: Contest, on_step: Callable[[int, int], None]) -> dict[str, Any]:
    """Frames per second without a network, the largest arithmetic rate, and GFLOPs per frame of each contender."""
    request, device = contest.request, contest.model.device

    def fps(work: Callable[[Contest], int]) -> float:
        started_s = time.perf_counter()
        return work(contest) / (time.perf_counter() - started_s)

    tasks = {"decode_fps": partial(fps, decode_only), "decode_encode_fps": partial(fps, decode_and_encode)}
    found = alternate(tasks, request.rounds, on_step=on_step)
    gflops = {mode: _gflops_per_frame(contest, mode) for mode in (IMAGE, TFC)}
    if has_transformers():
        plain = open_plain(contest)
        gflops[PLAIN] = count_flops(lambda: plain.labels(contest.clip.images[0])) / 1e9
    return {
        **{name: spread(values) for name, values in found.items()},
        "matrix_gflops_per_s": matrix_gflops(device, contest.model.precision),
        "matrix_side": _MATRIX.get(device.type, _MATRIX["cpu"]),
        "gflops_per_frame": gflops,
        "flops": FLOPS_FACTS,
    }


def measure_surroundings(contest: Contest, on_step: Callable[[int, int], None]) -> dict[str, Spread]:
    """Milliseconds per frame of the other steps of a run, each measured alone; in a run they overlap."""
    frames = contest.segment(TFC if contest.options.uses_memory else IMAGE, contest.clip.images)
    pictures = _rendered(contest, frames)
    works: dict[str, Callable[[], object]] = {
        "decode": lambda: decode_only(contest),
        "render": lambda: _rendered(contest, frames),
        "encode": lambda: _encode(contest, pictures),
        "masks": lambda: _write_masks(contest, frames),
        "stability with flow": lambda: _compare(frames, use_flow=True),
        "stability without flow": lambda: _compare(frames, use_flow=False),
    }
    counts = dict.fromkeys(works, len(frames)) | {"decode": decode_only(contest)}
    tasks = {name: partial(timed_ms, work, torch.device("cpu"), counts[name]) for name, work in works.items()}
    samples = alternate(tasks, contest.request.rounds, on_step=on_step)
    return {name: spread(values) for name, values in samples.items()}


def _gflops_per_frame(contest: Contest, mode: str) -> float | None:
    options = contest.in_mode(mode)
    step = options.keyframe_interval
    images = contest.clip.images
    samples = [images[first : first + step] for first in range(0, len(images) - step + 1, step)] or [images]
    return count_gflops(contest.model, options, samples)["gflops_per_frame"]


def _rendered(contest: Contest, frames: list[SegmentedFrame]) -> list[Image]:
    labels = contest.model.labels
    palette, legend = labels.palette_array(), Legend(labels, contest.clip.size)
    pictures = []
    for frame in frames:
        picture = overlay(frame.image, frame.labels, palette)
        legend.draw(picture, class_shares(frame.labels, len(labels)))
        pictures.append(picture)
    return pictures


def _encode(contest: Contest, pictures: Iterable[Image]) -> None:
    with (
        TemporaryDirectory(dir=contest.folder) as folder,
        VideoWriter(Path(folder) / "a.mp4", size=contest.clip.size, frame_rate=contest.clip.frame_rate) as video,
    ):
        for picture in pictures:
            video.write(picture)


def _write_masks(contest: Contest, frames: list[SegmentedFrame]) -> None:
    with (
        TemporaryDirectory(dir=contest.folder) as folder,
        MaskWriter(Path(folder), contest.model.labels.palette_array()) as masks,
    ):
        for frame in frames:
            masks.write(frame.index, frame.labels)


def _compare(frames: list[SegmentedFrame], *, use_flow: bool) -> None:
    meter = ConsistencyMeter(use_flow=use_flow)
    for frame in frames:
        meter.update(frame.image, frame.labels)
