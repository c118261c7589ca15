"""Measure peak memory, each contender in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tfcseg.benchmark.clips import Clip
from tfcseg.benchmark.contest import PLAIN, Contest, contenders
from tfcseg.benchmark.result import Memory
from tfcseg.errors import TfcsegError
from tfcseg.model.options import InferenceOptions


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
    command = [sys.executable, "-m", "tfcseg.benchmark.child"]
    done = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, check=False, text=True)
    if done.returncode:
        words = done.stderr.strip().splitlines()
        killed = f"ended by signal {-done.returncode}; too little memory?"
        reason = killed if done.returncode < 0 else words[-1] if words else f"exit code {done.returncode}"
        raise TfcsegError(f"the process that measures {job.contender} failed: {reason}")
    content: dict[str, Any] = json.loads(done.stdout)
    return Outcome(**content)
