"""Run several inputs, here or on a Ray cluster; and how each ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tfcseg.errors import FinishedError, LostConnection, TfcsegError, without_passwords
from tfcseg.files import parse_json, to_json
from tfcseg.inference.groups import SECTION_PARTS
from tfcseg.inference.options import checked_options
from tfcseg.media.reader import probe
from tfcseg.media.source import Source
from tfcseg.media.writer import PART_FRAMES
from tfcseg.report.schema import Report
from tfcseg.runs.options import RunOptions
from tfcseg.runs.outputs import OutputDir
from tfcseg.runs.pipeline import Listener, run_video
from tfcseg.runs.state import unfinished_frames
from tfcseg.weights.loading import ModelOnDemand
from tfcseg.workers import WorkerOptions, Workers, ray_workers


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run of one input ended."""

    source: str
    folder: Path
    seconds: float
    report: Report | None = None
    """None if it failed or was finished before; not if a live source was lost, whose results are complete."""
    error: TfcsegError | None = None  # FinishedError if it was finished before

    @property
    def status(self) -> str:
        """``done``, ``skipped`` (it was finished before) or ``failed``."""
        if self.error is None:
            return "done"
        return "skipped" if isinstance(self.error, FinishedError) else "failed"

    @property
    def content(self) -> Any:
        """The report in JSON types, also that of a run that was finished before; None if there is none."""
        if self.report is not None:
            return to_json(self.report)
        try:
            return parse_json(OutputDir(self.folder).report_json.read_bytes())
        except (OSError, ValueError):
            return None

    def to_json(self) -> dict[str, Any]:
        """Facts for a log."""
        return {
            "input": without_passwords(self.source),
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "frames": None if self.report is None else self.report.input.frames_decoded,
            "output": str(self.folder),
            "error": str(self.error) if self.status == "failed" else None,
        }


def run_input(
    source: str,
    folder: Path,
    model: ModelOnDemand,
    options: RunOptions,
    listener: Listener = Listener(),
    *,
    crew: Workers[Any] | None = None,
) -> Outcome:
    """Run one input; a failure is part of what is returned."""
    started_s = time.monotonic()
    report: Report | None = None
    error: TfcsegError | None = None
    try:
        report = run_video(source, folder, model, options, listener, crew=crew)
    except LostConnection as failure:
        error, report = failure, failure.report
    except TfcsegError as failure:
        error = failure
    return Outcome(source, folder, seconds=time.monotonic() - started_s, report=report, error=error)


@dataclass(frozen=True, slots=True)
class RunJob:
    """A whole video for one worker."""

    source: str
    folder: Path
    options: RunOptions

    def __call__(self, model: ModelOnDemand) -> Outcome:
        """Run it."""
        return run_input(self.source, self.folder, model, self.options)

    def again(self) -> RunJob:
        """The job to repeat after a worker died: it resumes from what was saved."""
        if unfinished_frames(self.folder) is None:
            return self
        return replace(self, options=replace(self.options, resume=True, overwrite=False))


def _make(model: str, options: RunOptions) -> Any:
    shared = ModelOnDemand(model, options.device, allow_network=options.allow_network)
    return lambda job: job(shared)


def run_on_ray(
    places: Sequence[tuple[str, Path]],
    model: str,
    options: RunOptions,
    workers: WorkerOptions,
    listener: Listener = Listener(),
) -> Iterator[Outcome]:
    """Run each source in its folder on a cluster; outcomes as they come. If there are fewer inputs than workers, all
    share each of the long ones, one after the other."""
    for source, _ in places:
        Source.of(source).check_readable_again("--ray reads it elsewhere")
    known = ModelOnDemand(model, options.device, allow_network=options.allow_network).known
    can_share = checked_options(known, options.inference).latency != "low"
    make = partial(_make, model, options)
    with ray_workers(workers, make, uses_gpu=options.device.may_use_gpu) as crew:
        is_few = can_share and len(places) < len(crew)
        shared = [place for place in places if is_few and _is_long(place[0], options)]
        alone = [place for place in places if place not in shared]
        started_s = time.monotonic()
        jobs = [RunJob(*place, options) for place in alone]
        for number, found in crew.each(jobs, RunJob.again):
            if isinstance(found, TfcsegError):
                found = Outcome(*alone[number], seconds=time.monotonic() - started_s, error=found)
            yield found
        for place in shared:
            yield _run_shared(crew, place, model, options, listener)


def _is_long(source: str, options: RunOptions) -> bool:
    if not Source.of(source).is_on_disk:
        return False
    try:
        info = probe(source)
    except TfcsegError:  # its run reports why
        return False
    return (info.frames_between(options.start_s, options.end_s) or 0) > SECTION_PARTS * PART_FRAMES


def _run_shared(
    crew: Workers[Any], place: tuple[str, Path], model: str, options: RunOptions, listener: Listener
) -> Outcome:
    """Run one video here, and its network on all workers."""
    started_s = time.monotonic()
    try:
        ((device, precision),) = crew.in_order([lambda model: (model.loaded.device, model.loaded.precision)])
        loaded = ModelOnDemand(model, replace(options.device, device="cpu", precision="fp32")).loaded
    except TfcsegError as error:
        return Outcome(*place, seconds=time.monotonic() - started_s, error=error)
    there = ModelOnDemand(replace(loaded, device=device, precision=precision))
    return run_input(*place, there, options, listener, crew=crew)
