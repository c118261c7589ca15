"""Run the parts of a benchmark; memory is measured in a process of its own for each run."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tfcseg.benchmark.contest import PLAIN, Contest, open_contest
from tfcseg.benchmark.plain import build_plain, has_transformers
from tfcseg.benchmark.request import PARTS, Request
from tfcseg.benchmark.speeds import OnStep, Speed, measure_end_to_end, measure_model_only, run_ours, run_plain
from tfcseg.errors import TfcsegError
from tfcseg.machine import keep_freed_memory
from tfcseg.model.options import InferenceOptions
from tfcseg.options import OnProgress
from tfcseg.report.schema import ModelConditions
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import load_model, resolve_precision

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory of a contender's process during a run, without ffmpeg's processes."""

    peak_mib: float
    before_mib: float
    """Before the first frame: Python, packages and model."""
    gpu_peak_mib: float | None
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(ModelConditions):
    """Content of a bench-*.json; parts that were not measured are empty."""

    kind: str = "bench"
    random_weights: bool
    embed_dim: int
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
        str(contest.weights),
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
    """Keep freed memory as the command line does, and end with Ctrl-C without a traceback."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _measure_run(
    contender: str, weights: str, device: DeviceOptions, options: InferenceOptions, *, source: Path, end_s: float
) -> Memory:
    target = torch.device(device.device)
    with TemporaryDirectory() as folder:
        if contender == PLAIN:
            unfolded = load_model(weights, device="cpu", precision="fp32", fold=False)
            plain = build_plain(unfolded, options.size, target, resolve_precision(device.precision, target))
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
