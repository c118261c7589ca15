"""Runs on the workers of a Ray cluster: several videos at a time, or one by all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from tfcseg.errors import TfcsegError
from tfcseg.inference.options import checked_options
from tfcseg.inference.repeats import SECTION_PARTS
from tfcseg.media.parts import PART_FRAMES
from tfcseg.media.reader import probe
from tfcseg.media.source import Source
from tfcseg.model.options import InferenceOptions
from tfcseg.runs.batch import Outcome, run_input
from tfcseg.runs.options import RunOptions
from tfcseg.runs.pipeline import Listener
from tfcseg.runs.sections import SectionSegmenter
from tfcseg.runs.state import unfinished_frames
from tfcseg.weights.on_demand import ModelOnDemand
from tfcseg.workers import WorkerOptions, Workers, ray_workers


class _Job(Protocol):
    def do(self, model: ModelOnDemand) -> Any: ...


@dataclass(frozen=True, slots=True)
class RunJob:
    """A whole video for one worker."""

    source: str
    folder: Path
    options: RunOptions

    def do(self, model: ModelOnDemand) -> Outcome:
        """Run it."""
        return run_input(self.source, self.folder, model, self.options)

    def again(self) -> RunJob:
        """The same after a worker died over it: what it has saved is gone on with."""
        if unfinished_frames(self.folder) is None:
            return self
        return replace(self, options=replace(self.options, resume=True, overwrite=False))


@dataclass(frozen=True, slots=True)
class _PlaceJob:
    """Asks where a worker's network runs, and in which precision."""

    def do(self, model: ModelOnDemand) -> tuple[torch.device, torch.dtype]:
        return model.loaded.device, model.loaded.precision


def _make(model: str, options: RunOptions) -> Any:
    """What a worker does: jobs, with a model that is loaded once."""
    shared = ModelOnDemand(model, options.device, allow_network=options.allow_network)
    return lambda job: job.do(shared)


def run_on_ray(
    places: Sequence[tuple[str, Path]],
    model: str,
    options: RunOptions,
    workers: WorkerOptions,
    listener: Listener = Listener(),
) -> Iterator[Outcome]:
    """Run each source in its folder on a cluster; outcomes as they come.

    If there are fewer inputs than workers, all share each of the long ones, one after the other.
    """
    for source, _ in places:
        Source.of(source).check_readable_again("--ray reads it elsewhere")
    known = ModelOnDemand(model, options.device, allow_network=options.allow_network).known
    can_share = _can_share(checked_options(known, options.inference))
    make = partial(_make, model, options)
    with ray_workers(workers, make, uses_gpu=options.device.may_use_gpu) as crew:
        is_few = can_share and len(places) < len(crew)
        shared = [place for place in places if is_few and _is_long(place[0], options)]
        alone = [place for place in places if place not in shared]
        started_s = time.monotonic()
        jobs = [RunJob(source, folder, options) for source, folder in alone]
        for number, found in crew.each(jobs, RunJob.again):
            if isinstance(found, TfcsegError):
                source, folder = alone[number]
                found = Outcome(source=source, folder=folder, seconds=time.monotonic() - started_s, error=found)
            yield found
        for source, folder in shared:
            yield _run_shared(crew, RunJob(source, folder, options), model, listener)


def _can_share(options: InferenceOptions) -> bool:
    """Whether sections of a video can be segmented apart: on one side, what keyframes carry over goes on for ever."""
    is_chain = options.sides == "one" and options.carries
    return not (is_chain or options.compile or options.latency == "low")


def _is_long(source: str, options: RunOptions) -> bool:
    """Whether a video has more than a section."""
    if not Source.of(source).is_on_disk:
        return False
    with suppress(TfcsegError):
        info = probe(source)
        frames = info.frames_declared or 0
        if options.end_s is not None:
            frames = min(frames, int(options.end_s * info.frame_rate))
        frames -= int((options.start_s or 0) * info.frame_rate)
        return frames > SECTION_PARTS * PART_FRAMES
    return False


def _run_shared(crew: Workers[Any], job: RunJob, model: str, listener: Listener) -> Outcome:
    """Run one video here, and its network on all workers."""
    source, folder, options = job.source, job.folder, job.options
    started_s = time.monotonic()
    try:
        (found,) = crew.in_order([_PlaceJob()])
        loaded = ModelOnDemand(model, replace(options.device, device="cpu", precision="fp32")).loaded
        there = ModelOnDemand(replace(loaded, device=found[0], precision=found[1]))
    except TfcsegError as error:
        return Outcome(source=source, folder=folder, seconds=time.monotonic() - started_s, error=error)
    return run_input(source, folder, there, options, listener, segment=SectionSegmenter(crew, source, options))
