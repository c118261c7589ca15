"""Measure one contender in its own process: ``python -m tfcseg.benchmark.child`` reads a `Job`, prints an `Outcome`."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tfcseg.allocator import keep_freed_memory
from tfcseg.benchmark.contest import PLAIN
from tfcseg.benchmark.end_to_end import run_ours, run_plain
from tfcseg.benchmark.memory import Job, Outcome
from tfcseg.benchmark.plain import build_plain
from tfcseg.benchmark.timing import synchronise
from tfcseg.errors import TfcsegError
from tfcseg.model.options import InferenceOptions
from tfcseg.weights.loading import load_model, resolve_precision

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
