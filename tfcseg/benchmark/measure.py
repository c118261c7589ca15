"""Measure contenders in turn: the network alone, whole runs from file to files, and memory.

They take turns after a warm-up, and all work of the device is included. Memory is that of a process of its own.
"""

from __future__ import annotations

import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tfcseg.benchmark.plain import REFERENCE_VARIANT, PlainSegformer, build_plain, has_transformers
from tfcseg.benchmark.random_model import write_random_model
from tfcseg.benchmark.request import CLASSES, PARTS, Request
from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import class_shares, overlay
from tfcseg.errors import TfcsegError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.network_input import network_size
from tfcseg.inference.options import checked_options, in_mode
from tfcseg.inference.segment import segment_with
from tfcseg.interrupts import end_with_parent
from tfcseg.labels.label_sets import LabelSet
from tfcseg.machine import keep_freed_memory
from tfcseg.media.frames import Image
from tfcseg.media.masks import MaskWriter
from tfcseg.media.reader import open_frames
from tfcseg.media.writer import VideoWriter
from tfcseg.model.options import InferenceOptions
from tfcseg.options import OnProgress, OnStep
from tfcseg.report.schema import ModelConditions, model_conditions
from tfcseg.runs.options import RunOptions
from tfcseg.runs.pipeline import run_video
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, load_model, resolve_precision

PLAIN, IMAGE, TFC = "plain", "image", "tfc"
"""Contenders: SegFormer of ``transformers`` frame by frame; tfcseg frame by frame; tfcseg with TFC."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Data shared by all parts of a benchmark."""

    request: Request
    folder: Path  # temporary; removed when the benchmark ends
    images: tuple[Image, ...]  # the first frames of the video, decoded, to measure the network alone
    first_time_s: float
    frame_rate: Fraction
    weights: str  # name or file, for `load_model`
    model: LoadedModel
    options: InferenceOptions

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the video."""
        height, width = self.images[0].shape[:2]
        return height, width

    @property
    def contenders(self) -> tuple[str, ...]:
        """Names of the available contenders."""
        ours = (IMAGE, TFC) if self.options.uses_memory else (IMAGE,)
        return (PLAIN, *ours) if has_transformers() else ours

    def options_of(self, contender: str) -> InferenceOptions:
        """Options of a contender; the names of ours are modes."""
        return self.options if contender == PLAIN else in_mode(self.model, self.options, contender)

    def open_plain(self) -> PlainSegformer:
        """Build plain SegFormer with the contest's weights, on its device."""
        unfolded = load_model(self.weights, device="cpu", precision="fp32", fold=False)
        return build_plain(unfolded, self.options.keyframe_size, self.model.device, self.model.precision)

    def end_s(self, contender: str) -> float:
        """End of the part for whole runs; plain SegFormer gets fewer frames, which all cost the same."""
        frames = self.request.clip_frames
        if contender == PLAIN:
            frames = min(self.request.plain_frames, frames)
        return self.first_time_s + (frames - 0.5) / float(self.frame_rate)  # half a frame before the next one

    def facts(self) -> dict[str, Any]:
        """Fields of `Benchmark` that say what was measured, and where."""
        facts = model_conditions(self.model)
        plain: dict[str, Any] = {"is_measured": has_transformers()}
        if has_transformers():
            facts["versions"] = {**facts["versions"], "transformers": version("transformers")}
            backbone = self.model.card.config.backbone
            is_segformer = backbone.startswith("mit_")
            variant = backbone.removeprefix("mit_") if is_segformer else REFERENCE_VARIANT
            plain["network"] = f"SegFormer-{variant.upper()}"
            plain["weights"] = "the same" if is_segformer else "random, with as many classes"
            plain["precision"] = facts["precision"]
        options = {name: value for name, value in asdict(self.options).items() if name != "mode"}
        options["workers"] = IntervalNetwork(self.model, self.options).workers
        return {
            **facts,
            "random_weights": self.request.backbone is not None,
            "input": {"name": self.request.video.name, "frame_rate": str(self.frame_rate)},
            "resolution": {"source": self.size, "network": network_size(self.size, self.options.keyframe_size)},
            "options": options,
            "plain": plain,
            "rounds": self.request.rounds,
        }


@contextmanager
def open_contest(request: Request) -> Iterator[Contest]:
    """Load the model or make random weights, and read the clip; temporary files are removed at the end.

    Raises UsageError, InputError or WeightsError if that fails.
    """
    request.check()
    with TemporaryDirectory(prefix="tfcseg-bench-") as name:
        with open_frames(request.video) as source:
            frames = list(islice(source, request.frames))
        images = tuple(frame.image for frame in frames)
        weights = request.model
        if request.backbone is not None:
            file = Path(name) / f"random-{request.backbone}.safetensors"
            weights = str(write_random_model(file, request.backbone, request.classes or CLASSES, images[:1]))
        model = load_model(weights, device=request.device.device, precision=request.device.precision)
        yield Contest(
            request=request,
            folder=Path(name),
            images=images,
            first_time_s=frames[0].time_s,
            frame_rate=source.info.frame_rate,
            weights=weights,
            model=model,
            options=checked_options(model, request.inference),
        )


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


def alternate(tasks: Mapping[str, Callable[[], float]], rounds: int, on_step: OnStep) -> dict[str, list[float]]:
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


def measure_model_only(contest: Contest, on_step: OnStep) -> dict[str, Any]:
    """Time preprocessing, network and labels on the clip's decoded frames: fields of `Benchmark`."""
    labels: dict[str, list[NDArray[np.uint8]]] = {}
    updated: list[float] = []
    plain = contest.open_plain() if PLAIN in contest.contenders else None

    def label(name: str) -> int:
        if name == PLAIN and plain is not None:
            labels[name] = [plain.labels(image) for image in contest.images[: contest.request.plain_frames]]
            return len(labels[name])
        frames = list(segment_with(contest.images, contest.model, contest.options_of(name)))
        labels[name] = [frame.labels for frame in frames]
        updated[:] = [frame.updated_fraction for frame in frames if frame.updated_fraction is not None] or updated
        return len(frames)

    tasks = {name: partial(label, name) for name in contest.contenders}
    speeds = _speeds(contest.request.rounds, "model_only", tasks, on_step)
    compared = [(IMAGE, TFC)]
    if plain is not None and plain.has_same_weights:
        compared.append((PLAIN, IMAGE))
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

    tasks = {name: partial(run, name) for name in contest.contenders}
    return _speeds(contest.request.rounds, "end_to_end", tasks, on_step)


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


def _speeds(rounds: int, part: str, tasks: Mapping[str, Callable[[], int]], on_step: OnStep) -> dict[str, Any]:
    """Time ``tasks``, which return their numbers of frames; fields of `Benchmark` for ``part``."""
    frames: dict[str, int] = {}

    def time_ms(name: str) -> float:
        started_s = time.perf_counter()
        frames[name] = tasks[name]()  # ends with labels on the CPU: a GPU has then done its work
        return 1000 * (time.perf_counter() - started_s) / frames[name]

    samples = alternate({name: partial(time_ms, name) for name in tasks}, rounds, on_step)
    speeds: dict[str, Speed] = {}
    for name, times in samples.items():
        each = spread(times)
        speeds[name] = Speed(1000 / each.median, each, frames[name])
    ratios = {f"{a}/{b}": speeds[a].fps / speeds[b].fps for a, b in RATIOS if {a, b} <= speeds.keys()}
    return {part: speeds, "ratios": {part: ratios}}


_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory of a contender's process during a run, without ffmpeg's processes."""

    peak_mib: float
    before_mib: float  # before the first frame: Python, packages and model
    gpu_peak_mib: float | None
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(ModelConditions):
    """Content of a bench-*.json; parts that were not measured are empty."""

    kind: str = "bench"
    random_weights: bool
    input: Mapping[str, Any]
    resolution: Mapping[str, tuple[int, int]]  # (height, width) of the source and of the network's input
    options: Mapping[str, Any]
    plain: Mapping[str, Any]  # facts about plain SegFormer
    rounds: int
    model_only: Mapping[str, Speed] = field(default_factory=dict)
    end_to_end: Mapping[str, Speed] = field(default_factory=dict)
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)  # "image|tfc" -> percentage of all pixels
    updated_fraction: float | None = None
    memory: Mapping[str, Memory] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def measure(request: Request, on_progress: OnProgress = lambda part, done, total: None) -> Benchmark:
    """Measure the ``parts`` of ``request``; UsageError, InputError or WeightsError before the first measurement."""
    measures = {"model": measure_model_only, "end-to-end": measure_end_to_end, "memory": measure_memory}
    left_out = [f"not asked for: {part}" for part in PARTS if part not in request.parts]
    if not has_transformers():
        left_out.append("plain: transformers is not installed (pip install transformers)")
    left_out += ["loading the model", "memory of ffmpeg's processes"]
    with open_contest(request) as contest:
        found: dict[str, Any] = {}
        ratios: dict[str, Any] = {}
        for part in (part for part in PARTS if part in request.parts):
            found |= measures[part](contest, partial(on_progress, part))
            ratios |= found.pop("ratios", {})
        return Benchmark(**contest.facts(), **found, ratios=ratios, left_out=tuple(left_out))


def measure_memory(contest: Contest, on_step: OnStep) -> dict[str, Any]:
    """Peak memory of whole runs of all contenders: fields of `Benchmark`."""
    found = {}
    for done, name in enumerate(contest.contenders, 1):
        found[name] = run_alone(name, job_for(contest, name))
        on_step(done, len(contest.contenders))
    return {"memory": found}


def job_for(contest: Contest, contender: str) -> Callable[[], Memory]:
    """Job of a process: load the model, run ``contender`` from file to files, and measure."""
    return partial(
        _measure_run,
        contender,
        contest.weights,
        DeviceOptions(str(contest.model.device), contest.request.device.precision),
        contest.options_of(contender),
        source=contest.request.video,
        end_s=contest.end_s(contender),
    )


def run_alone(contender: str, job: Callable[[], Memory]) -> Memory:
    """Do a job in a new process; TfcsegError if it fails."""
    what = f"the process that measures {contender}"
    try:
        with ProcessPoolExecutor(1, get_context("spawn"), _begin) as process:
            return process.submit(job).result()
    except BrokenProcessPool:
        raise TfcsegError(f"{what} was killed; too little memory?") from None
    except TfcsegError as error:
        raise TfcsegError(f"{what} failed: {error}") from None


def _begin() -> None:
    """Keep freed memory as the command line does, and end with Ctrl-C without a traceback, or with the parent."""
    keep_freed_memory()
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _measure_run(
    contender: str, weights: str, device: DeviceOptions, options: InferenceOptions, *, source: Path, end_s: float
) -> Memory:
    target = torch.device(device.device)
    with TemporaryDirectory() as folder:
        if contender == PLAIN:
            unfolded = load_model(weights, device="cpu", precision="fp32", fold=False)
            plain = build_plain(unfolded, options.keyframe_size, target, resolve_precision(device.precision, target))
            before_mib = peak_mib()
            frames = run_plain(plain, unfolded.labels, source, end_s, Path(folder))
        else:
            model = load_model(weights, device=device.device, precision=device.precision)
            before_mib = peak_mib()
            frames = run_ours(model, options, source, end_s, Path(folder))
    gpu_mib = torch.cuda.max_memory_allocated(target) / _MIB if target.type == "cuda" else None
    # The kernel updates its counters with delay, so the peak may appear a few pages smaller than before.
    return Memory(max(before_mib, peak_mib()), before_mib, gpu_mib, frames)


def peak_mib() -> float:
    """Peak memory of this process so far, in MiB.

    Read from /proc on Linux, where getrusage would include the parent's memory at the time of the fork.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / _MIB if sys.platform == "darwin" else peak / 1024
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
