"""Measure time and peak memory of whole runs, each in its own process.

``python -m tfcseg.benchmark.memory`` reads a `Job` from stdin and prints an `Outcome`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tfcseg.benchmark.clips import Clip
from tfcseg.benchmark.contest import PLAIN, Contest, contenders
from tfcseg.benchmark.end_to_end import run_ours, run_plain
from tfcseg.benchmark.plain import build_plain
from tfcseg.benchmark.timing import Memory, synchronise
from tfcseg.errors import TfcsegError
from tfcseg.machine import keep_freed_memory
from tfcseg.model.options import InferenceOptions
from tfcseg.weights.loading import load_model, resolve_precision


@dataclass(frozen=True, slots=True)
class Job:
    """Task of a process: load a model, and run one contender from file to files."""

    contender: str
    weights: str
    device: str
    precision: str
    plain_precision: str
    options: InferenceOptions
    source: str
    end_s: float
    warm_up_end_s: float | None
    """End of an untimed run before the measured one; None: no such run."""
    title: str | None = None
    """Name of the contender in results, if it differs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Measurements of the process."""

    frames: int
    seconds: float
    """Time of the run, without loading the model."""
    before_mib: float
    peak_mib: float
    gpu_peak_mib: float | None


def measure_memory(contest: Contest, on_step: Callable[[int, int], None]) -> dict[str, Memory]:
    """Peak memory of whole runs, by contender."""
    names = contenders(contest)
    found = {}
    for done, name in enumerate(names, 1):
        outcome = run_job(job_for(contest, name, contest.clip))
        found[name] = Memory(outcome.peak_mib, outcome.before_mib, outcome.gpu_peak_mib, outcome.frames)
        on_step(done, len(names))
    return found


def job_for(contest: Contest, contender: str, clip: Clip, frames: int | None = None, warm_up_frames: int = 0) -> Job:
    """Make the job of a run of ``contender`` on the first ``frames`` of ``clip``, by default as in the request."""
    request = contest.request
    if frames is None:
        frames = request.plain_frames if contender == PLAIN else request.clip_frames
    options = contest.options if contender == PLAIN else contest.in_mode(contender)
    return Job(
        contender=contender,
        weights=str(contest.weights),
        device=str(contest.model.device),
        precision=request.device.precision,
        plain_precision=request.plain_precision,
        options=options,
        source=str(clip.path),
        end_s=clip.end_s(frames),
        warm_up_end_s=clip.end_s(warm_up_frames) if warm_up_frames else None,
    )


def run_job(job: Job) -> Outcome:
    """Run ``job`` in a new process; TfcsegError with its last message if it fails."""
    command = [sys.executable, "-m", "tfcseg.benchmark.memory"]
    done = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, check=False, text=True)
    if done.returncode:
        words = done.stderr.strip().splitlines()
        killed = f"ended by signal {-done.returncode}; too little memory?"
        reason = killed if done.returncode < 0 else words[-1] if words else f"exit code {done.returncode}"
        raise TfcsegError(f"the process that measures {job.contender} failed: {reason}")
    content: dict[str, Any] = json.loads(done.stdout)
    return Outcome(**content)


_MIB = 1 << 20


def measure_job(job: Job) -> Outcome:
    """Load the model of ``job``, run its contender, and measure time and memory."""
    is_plain = job.contender == PLAIN
    device = torch.device(job.device)
    if is_plain:
        model = load_model(job.weights, device="cpu", precision="fp32", fold=False)
        plain = build_plain(model, job.options.size, device, resolve_precision(job.plain_precision, device))
    else:
        model = load_model(job.weights, device=job.device, precision=job.precision)

    def work(end_s: float, folder: str) -> int:
        if is_plain:
            Path(folder).mkdir()
            return run_plain(plain, model.labels, Path(job.source), end_s, Path(folder))
        return run_ours(model, job.options, Path(job.source), end_s, Path(folder))

    before_mib = peak_mib()
    with TemporaryDirectory() as folder:
        if job.warm_up_end_s is not None:
            work(job.warm_up_end_s, f"{folder}/warm-up")
        synchronise(device)
        started_s = time.perf_counter()
        frames = work(job.end_s, f"{folder}/run")
        synchronise(device)
        seconds = time.perf_counter() - started_s
    gpu_mib = torch.cuda.max_memory_allocated(device) / _MIB if device.type == "cuda" else None
    # The kernel updates its counters with delay, so the peak may appear a few pages smaller than before.
    return Outcome(frames, seconds, before_mib, max(before_mib, peak_mib()), gpu_mib)


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


def main() -> None:
    """Read the job and print the outcome, or one line on stderr on failure."""
    keep_freed_memory()  # as the command line does
    content = json.load(sys.stdin)
    job = Job(**content | {"options": InferenceOptions(**content["options"])})
    try:
        outcome = measure_job(job)
    except TfcsegError as error:
        sys.exit(str(error))
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
