"""Peak memory, each contender in a process of its own: one that has run another contender would remember it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tfcseg.benchmark.request import PLAIN, Contest, Method, contenders
from tfcseg.benchmark.result import Memory
from tfcseg.errors import TfcsegError


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is asked to do: load a model, and run one contender from file to files."""

    contender: str
    weights: str
    device: str
    precision: str
    plain_precision: str
    method: Method
    source: str
    end_s: float
    warm_up_end_s: float | None
    """Run on this much of the source first, untimed; None: do not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the process measured."""

    frames: int
    seconds: float
    """Of the run, without loading the model."""
    before_mib: float
    peak_mib: float
    gpu_peak_mib: float | None


def measure_memory(contest: Contest, on_step: Callable[[int, int], None]) -> dict[str, Memory]:
    """Peak memory of whole runs, by contender."""
    names = contenders(contest)
    found = {}
    for done, name in enumerate(names, 1):
        frames = contest.request.plain_frames if name == PLAIN else contest.request.clip_frames
        outcome = run_job(job_for(contest, name, contest.clip.end_s(frames)))
        found[name] = Memory(outcome.peak_mib, outcome.before_mib, outcome.gpu_peak_mib, outcome.frames)
        on_step(done, len(names))
    return found


def job_for(contest: Contest, contender: str, end_s: float) -> Job:
    """A whole run of ``contender`` on the contest's clip up to ``end_s``."""
    request = contest.request
    return Job(
        contender,
        str(contest.weights),
        str(contest.model.device),
        request.precision,
        request.plain_precision,
        contest.method,
        str(contest.clip.path),
        end_s,
        None,
    )


def run_job(job: Job) -> Outcome:
    """Do ``job`` in a new process; TfcsegError with its last words if it fails."""
    command = [sys.executable, "-m", "tfcseg.benchmark.child"]
    done = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, check=False, text=True)
    if done.returncode:
        words = done.stderr.strip().splitlines()
        raise TfcsegError(f"the process that measures {job.contender} failed: {words[-1] if words else 'no reason'}")
    content: dict[str, Any] = json.loads(done.stdout)
    return Outcome(**content)
