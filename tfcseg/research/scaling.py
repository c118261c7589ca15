"""Measure and plot how time per frame and memory of runs grow with length, resolution or number of classes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tfcseg.benchmark.clips import make_clip, read_clip, repeat_clip
from tfcseg.benchmark.contest import IMAGE, PLAIN, TFC, Contest, contest_facts, open_contest
from tfcseg.benchmark.memory import Job, Outcome, job_for, run_job
from tfcseg.benchmark.plain import has_transformers
from tfcseg.benchmark.random_model import write_random_model
from tfcseg.benchmark.request import Request
from tfcseg.benchmark.timing import ContestConditions, Spread, spread
from tfcseg.errors import TfcsegError, UsageError
from tfcseg.files import claimed_files, replace_atomically, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KIND = "bench-scaling"
NATIVE = "tfc, network as large"
"""TFC with the network's input at the size of the source."""

SCALINGS: Mapping[str, tuple[int, ...]] = {
    "length": (100, 300, 1000, 3000, 10_000),
    "resolution": (360, 480, 720, 1080, 1440, 2160),
    "classes": (19, 31, 59, 124, 150),
}
"""Quantities and their default values: frames, rows of a 16:9 picture, classes of random weights."""

UNITS = {"length": "frames", "resolution": "rows of pixels (16:9)", "classes": "classes"}

_BOUNDS = {"length": (1, 1_000_000), "resolution": (32, 4320), "classes": (2, 254)}
_WARM_UP_FRAMES = 6


@dataclass(frozen=True, slots=True)
class Point:
    """A contender's measurements at one value; None if they failed, with the reason in ``error``."""

    contender: str
    value: int
    frames: int | None = None
    ms_per_frame: Spread | None = None
    before_mib: float | None = None
    peak_mib: float | None = None
    gpu_peak_mib: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling(ContestConditions):
    """Content of a scaling-*.json; ``resolution`` is that of the clip, unless resolution is varied."""

    kind: str = KIND
    scaling: str
    unit: str
    points: tuple[Point, ...]


def measure_scaling(
    request: Request,
    what: str,
    folder: Path,
    values: Sequence[int] = (),
    on_step: Callable[[str, int, int], None] = lambda part, done, total: None,
    *,
    overwrite: bool = False,
) -> Scaling:
    """Measure runs for growing ``values`` of ``what`` (by default those of ``SCALINGS``).

    Every run has its own process, which first runs a few frames untimed. Writes ``scaling-<what>.json`` and plots into
    ``folder``. A failure (too little memory) is recorded, and the other measurements continue. Raises UsageError for an
    unknown ``what`` or invalid values, OutputError for files that exist or cannot be written.
    """
    values = _checked(what, values)
    require_matplotlib()
    inputs = [] if request.video is None else [request.video]
    names = [f"scaling-{what}{suffix}" for suffix in (".json", *PLOT_SUFFIXES)]
    with claimed_files(folder, names, inputs=inputs, overwrite=overwrite), open_contest(request) as contest:
        jobs = list(_JOBS[what](contest, values))
        steps = len(jobs) * request.rounds
        outcomes: list[list[Outcome | str]] = [[] for _ in jobs]
        for number in range(request.rounds):
            for index, (_, job) in enumerate(jobs):
                outcomes[index].append(_try(job))
                on_step(what, number * len(jobs) + index + 1, steps)
        points = tuple(_point(*jobs[index], outcomes[index]) for index in range(len(jobs)))
        if all(point.error for point in points):
            raise TfcsegError(f"nothing could be measured: {points[0].error}")
        result = Scaling(scaling=what, unit=UNITS[what], **contest_facts(contest), points=points)
        _write(folder, result)
    return result


def _checked(what: str, values: Sequence[int]) -> Sequence[int]:
    if what not in SCALINGS:
        raise UsageError(f"no scaling {what!r}; there are {', '.join(SCALINGS)}")
    low, high = _BOUNDS[what]
    for value in values:
        if not low <= value <= high:
            raise UsageError(f"{what} {value} is not between {low} and {high}")
    return sorted(set(values)) or SCALINGS[what]


def _by_length(contest: Contest, values: Sequence[int]) -> Iterator[tuple[int, Job]]:
    """Jobs of TFC alone, since all contenders grow in the same way."""
    for frames in values:
        clip = read_clip(repeat_clip(contest.clip.path, contest.folder / f"{frames}-frames.mp4", frames), 1)
        yield frames, job_for(contest, TFC, clip, frames, _WARM_UP_FRAMES)


def _by_resolution(contest: Contest, values: Sequence[int]) -> Iterator[tuple[int, Job]]:
    """Jobs with the network's default input size, and jobs of TFC whose input grows, too."""
    few = contest.request.plain_frames
    for rows in values:
        path = contest.folder / f"{rows}-rows.mp4"
        clip = read_clip(make_clip(path, (rows, round(rows * 16 / 18) * 2), contest.request.clip_frames), 1)
        for name in _contenders():
            yield rows, job_for(contest, name, clip, warm_up_frames=_WARM_UP_FRAMES)
        job = job_for(contest, TFC, clip, few, _WARM_UP_FRAMES)
        yield rows, replace(job, title=NATIVE, options=replace(job.options, size=min(rows, 4096)))


def _by_classes(contest: Contest, values: Sequence[int]) -> Iterator[tuple[int, Job]]:
    """Jobs with random weights of the model's backbone."""
    backbone = contest.model.card.config.backbone
    for classes in values:
        path = contest.folder / f"{classes}-classes.safetensors"
        write_random_model(path, backbone, classes, contest.clip.images[:1])
        for name in _contenders():
            job = job_for(contest, name, contest.clip, warm_up_frames=_WARM_UP_FRAMES)
            yield classes, replace(job, weights=str(path))


def _contenders() -> tuple[str, ...]:
    return (PLAIN, IMAGE, TFC) if has_transformers() else (IMAGE, TFC)


_JOBS: dict[str, Callable[[Contest, Sequence[int]], Iterator[tuple[int, Job]]]] = {
    "length": _by_length,
    "resolution": _by_resolution,
    "classes": _by_classes,
}


def _try(job: Job) -> Outcome | str:
    try:
        return run_job(job)
    except TfcsegError as error:
        return str(error)


def _point(value: int, job: Job, outcomes: Sequence[Outcome | str]) -> Point:
    name = job.title or job.contender
    measured = [outcome for outcome in outcomes if isinstance(outcome, Outcome)]
    if not measured:
        return Point(name, value, error=next(text for text in outcomes if isinstance(text, str)))
    gpu = [outcome.gpu_peak_mib for outcome in measured if outcome.gpu_peak_mib is not None]
    return Point(
        contender=name,
        value=value,
        frames=measured[0].frames,
        ms_per_frame=spread(1000 * outcome.seconds / outcome.frames for outcome in measured),
        before_mib=max(outcome.before_mib for outcome in measured),
        peak_mib=max(outcome.peak_mib for outcome in measured),
        gpu_peak_mib=max(gpu) if gpu else None,
    )


def _write(folder: Path, result: Scaling) -> None:
    write_json(folder / f"scaling-{result.scaling}.json", result)
    times: dict[str, list[tuple[float, float]]] = {}
    peaks: dict[str, list[tuple[float, float]]] = {}
    for point in result.points:
        if point.ms_per_frame is not None and point.peak_mib is not None:
            times.setdefault(point.contender, []).append((point.value, point.ms_per_frame.median))
            peaks.setdefault(point.contender, []).append((point.value, point.peak_mib))
    panels = {"ms per frame, file to files": times, "peak memory of the process (MiB)": peaks}
    for suffix in PLOT_SUFFIXES:
        draw_scaling(folder / f"scaling-{result.scaling}{suffix}", panels, result.unit, _title(result))


def _title(result: Scaling) -> str:
    name = f"random {result.model.backbone}" if result.scaling == "classes" else result.model.name
    return f"{name} · {result.device_name} ({result.device}, {result.precision})"


PLOT_SUFFIXES = (".png", ".svg")
_COLOURS = {"plain": "#e08214", "image": "#3a3f4a", "tfc": "#1b6ec2"}
_OTHER_COLOUR = "#7b3294"
_WIDE = 20
"""Range of values, as a factor, from which an axis is logarithmic."""

Curves: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]
"""Name of a curve -> its points (x, y)."""


def require_matplotlib() -> None:
    """Raise TfcsegError if the optional plotting package is missing; call this before any work begins."""
    if importlib.util.find_spec("matplotlib") is None:
        raise TfcsegError("plots need matplotlib, which is not installed; run: pip install matplotlib")


def draw_scaling(path: Path, panels: Mapping[str, Curves], unit: str, title: str) -> None:
    """Draw one panel per quantity, each with its curves over ``unit``, to ``path`` (.png or .svg)."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # A fixed salt makes files reproducible; text as text makes them small and searchable.
    with rc_context({"svg.hashsalt": "tfcseg", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(4.8 * len(panels), 4.2), layout="constrained")
        for axes, (quantity, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            _draw(axes, curves, quantity, unit)
        figure.suptitle(title, fontsize=11)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        with replace_atomically(path) as partial:
            figure.savefig(partial, format=path.suffix[1:], dpi=160, metadata=metadata)


def _draw(axes: Axes, curves: Curves, quantity: str, unit: str) -> None:
    values = sorted({x for points in curves.values() for x, _ in points})
    heights = [y for points in curves.values() for _, y in points]
    for name, points in curves.items():
        colour = _COLOURS.get(name, _OTHER_COLOUR)
        axes.plot([x for x, _ in points], [y for _, y in points], "o-", color=colour, label=name)
    if values[-1] > _WIDE * values[0]:
        axes.set_xscale("log")
    if max(heights) > _WIDE * min(heights):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.08 * max(heights))  # start at 0, so that growth is not exaggerated
    axes.set_xticks(values, [f"{value:g}" for value in values], minor=False)
    axes.minorticks_off()
    axes.set_xlabel(unit)
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
