"""Totals over the frames of a run, and the report made from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.exports.export import Exported
from tfcseg.media.mask_folder import MaskFolder
from tfcseg.media.masks import Mask, count_values
from tfcseg.media.streams import NewestFrames
from tfcseg.metrics.consistency import PhaseChanges
from tfcseg.model.options import InferenceOptions
from tfcseg.report.schema import (
    ClassFacts,
    ConfidenceFacts,
    FrameRow,
    InputFacts,
    OptionFacts,
    Report,
    SpeedFacts,
    StabilityFacts,
    SteadyFacts,
    model_facts,
)
from tfcseg.spelling import first_of
from tfcseg.weights.convert import DESCRIPTION
from tfcseg.weights.loading import Known

if TYPE_CHECKING:
    from tfcseg.runs.job import Job
    from tfcseg.runs.results import ResultWriter

_OF_ALL = ("label_change", "flow_consistency", "confidence", "unsure", "label_change_before", "flow_consistency_before")
_OF_COMPUTED = ("similarity", "updated_fraction")  # measured quantities by the frames that they are the mean of


@dataclass(slots=True)
class Summary:
    """Totals over the frames written so far; ``shares`` (K,) are sums over frames."""

    shares: NDArray[np.float64]
    frames: int = 0
    repeated: int = 0
    """Frames that repeat the picture of the one before. The fields below count the others."""
    keyframes: int = 0
    cuts: int = 0  # frames whose labels are not compared with those before
    filled: int = 0  # frames without a mask that got one
    ids: dict[str, float] = field(default_factory=dict)
    """Sums of the shares of ids in masks of 16 bits, since several ids have one label."""
    totals: dict[str, float] = field(default_factory=dict)
    """Sums by what was measured: columns of frames.csv, ``keyframe_ms`` and ``non_keyframe_ms``."""
    counts: dict[str, int] = field(default_factory=dict)  # how many values each sum is of
    phases: PhaseChanges = field(default_factory=PhaseChanges)

    def measure(self, name: str, value: float | None) -> None:
        """Add a value; None if it was not measured."""
        if value is not None:
            self.totals[name] = self.totals.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, name: str) -> float | None:
        """Mean of a quantity; None if it was not measured."""
        return self.totals[name] / self.counts[name] if name in self.counts else None

    def add(self, row: FrameRow, shares: NDArray[np.float64], *, is_cut: bool = False) -> None:
        """Add one frame: its measurements and the (K,) ``shares`` of its classes. At a cut, labels change anyway."""
        self.frames += 1
        self.cuts += is_cut
        self.shares += shares
        if is_cut:
            row = replace(row, label_change=None, label_change_before=None)
        is_copy = row.model_ms is None  # of the result of the frame before
        for name in _OF_ALL if is_copy else (*_OF_ALL, *_OF_COMPUTED):
            self.measure(name, getattr(row, name))
        if is_copy:
            self.repeated += 1
            return
        self.keyframes += row.is_keyframe
        self.phases.add(is_keyframe=row.is_keyframe, label_change=row.label_change)
        self.measure("keyframe_ms" if row.is_keyframe else "non_keyframe_ms", row.model_ms)

    def add_ids(self, mask: Mask) -> None:
        """Add the (H, W) ids of one frame."""
        counts = count_values(mask)
        for value in np.flatnonzero(counts).tolist():
            self.ids[str(value)] = self.ids.get(str(value), 0.0) + float(counts[value] / mask.size)

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON types without losing precision."""
        return asdict(self) | {"shares": self.shares.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Summary:
        """Restore what ``to_json`` returned."""
        shares = np.array(content["shares"], np.float64)
        return cls(**{**content, "shares": shares, "phases": PhaseChanges(**content["phases"])})


def build_report(job: Job, writer: ResultWriter, live: NewestFrames | None, exported: Exported) -> Report:
    """Make the report of a run whose files are complete."""
    summary, mean = writer.summary, writer.summary.mean
    lost = () if live is None or live.lost is None else (str(live.lost),)
    warnings = [*job.frames.warnings, *lost, *exported.notes]
    if writer.audio and writer.audio.startswith("dropped"):
        warnings.append(f"audio {writer.audio}")
    options, card = job.network.options, job.model.card
    # Card scores are measured with its defaults: a model that was measured without sparse attention lacks nothing.
    misses = not card.measured or (options.sides == "one" and options.threshold > 0)
    if not card.config.repairs and misses and options.mode == "tfc" and options.uses_memory:
        warnings.append(f"model {card.name} is {DESCRIPTION}")
    if job.given is not None:
        warnings += _steady_warnings(summary, job.given)
    return Report(
        tfcseg=version("tfcseg"),
        input=_input_facts(job, writer, live),
        model=model_facts(job.model),
        options=option_facts(job.model, options),
        speed=_speed_facts(job, writer),
        stability=StabilityFacts(
            label_change=mean("label_change"),
            flow_consistency=mean("flow_consistency"),
            optical_flow=writer.measurer.flow_name,
            similarity=mean("similarity"),
            updated_fraction=mean("updated_fraction"),
            keyframes=summary.keyframes,
            pulse=summary.phases.pulse,
            cuts=None if writer.measurer.flow_name is None else summary.cuts,
        ),
        confidence=ConfidenceFacts(
            mean("confidence"),
            mean("unsure"),
            job.options.unsure_below,
            job.model.temperature,
            job.model.calibration_error,
        ),
        classes=_class_facts(job, summary),
        outputs=writer.outputs | exported.files,
        warnings=tuple(warnings),
        steady=None if job.given is None else _steady_facts(summary, job.given),
        run=job.identity,
    )


def _steady_facts(summary: Summary, given: MaskFolder) -> SteadyFacts:
    return SteadyFacts(
        masks=str(given.path),
        void=given.void,
        given=len(given.files),
        filled=summary.filled,
        label_change=summary.mean("label_change_before"),
        flow_consistency=summary.mean("flow_consistency_before"),
    )


def _steady_warnings(summary: Summary, given: MaskFolder) -> Iterator[str]:
    mean, missing = summary.mean, summary.frames - len(given.files)
    rise, gain = ((mean(name) or 0) - (mean(f"{name}_before") or 0) for name in ("label_change", "flow_consistency"))
    if mean("flow_consistency") is not None and rise > max(0, gain):  # it would also rise where labels lagged
        yield "the masks were steady already, and labels now change more often; use the given ones"
    left = missing - summary.filled
    if missing:
        yield (
            f"{missing} of {summary.frames} frames have no mask in {given.path}: {summary.filled} got one from "
            f"those around them, {left} {'has' if left == 1 else 'have'} none"
        )


def option_facts(model: Known, options: InferenceOptions) -> OptionFacts:
    """Every option that determines the labels, besides input and weights."""
    return OptionFacts(
        **asdict(options), device=str(model.device), precision=str(model.precision).removeprefix("torch.")
    )


def _input_facts(job: Job, writer: ResultWriter, live: NewestFrames | None) -> InputFacts:
    info = job.info
    return InputFacts(
        path=info.path,
        frames_decoded=job.frames.frames_decoded if live is None else writer.summary.frames,
        frames_declared=info.frames_declared,
        width=info.width,
        height=info.height,
        frame_rate=info.frame_rate,
        duration_s=info.duration_s,
        rotation=info.rotation,
        audio=writer.audio if info.audio is None else f"{info.audio} ({writer.audio or 'not written'})",
        start_s=job.run.start_s,
        end_s=job.run.end_s,
        pixel_aspect=info.pixel_aspect,
        frames_repeated=writer.summary.repeated,
        frames_dropped=0 if live is None else live.dropped,
    )


def _speed_facts(job: Job, writer: ResultWriter) -> SpeedFacts:
    summary, wall_s = writer.summary, writer.wall_s()
    # A live source repeats frames in place of late ones, which does not count as speed.
    frames = summary.frames - (summary.repeated if job.info.source.is_live else 0)
    model_s = sum(summary.totals.get(name, 0.0) for name in ("keyframe_ms", "non_keyframe_ms")) / 1000
    return SpeedFacts(
        wall_s=wall_s,
        fps=frames / wall_s,
        model_fps=frames / model_s if model_s else None,
        keyframe_ms=summary.mean("keyframe_ms"),
        non_keyframe_ms=summary.mean("non_keyframe_ms"),
        resumes=writer.resumes,
    )


def _class_facts(job: Job, summary: Summary) -> tuple[ClassFacts, ...]:
    names: Mapping[int, str] = dict(enumerate(job.labels.names))
    totals = dict(enumerate(summary.shares.tolist()))
    if job.given is not None and summary.ids:
        names = job.given.classes.names
        totals = {int(value): total for value, total in summary.ids.items() if int(value) != job.given.void}
    frames = max(1, summary.frames)
    return tuple(
        ClassFacts(index, names.get(index, f"{index}"), total / frames)
        for index, total in sorted(totals.items())
        if total > 0
    )


def as_drawn(report: Report, given: MaskFolder) -> Report:
    """The ``report`` with classes as they are drawn: ids of instances, in masks of 16 bits, share labels."""
    if given.form.dtype == np.uint8:
        return report
    ids: dict[int, list[ClassFacts]] = {}
    for each in report.classes:
        ids.setdefault(int(given.labels_of_values[each.index]), []).append(each)
    return replace(
        report,
        classes=tuple(
            ClassFacts(label, first_of([each.name for each in same], 3, " or "), sum(each.share for each in same))
            for label, same in sorted(ids.items())
        ),
    )
