"""Totals over the frames of a run, and the report made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.exports.export import Exported
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import FrameSource, VideoInfo
from tfcseg.media.mask_folder import MaskFolder
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
from tfcseg.weights.convert import DESCRIPTION
from tfcseg.weights.loading import LoadedModel
from tfcseg.weights.on_demand import Known

if TYPE_CHECKING:
    from tfcseg.runs.results import ResultWriter

_LEAST_CONTRAST = 1.03
"""What is seen changes more across the edges of masks than inside: 1.1 to 1.3 times as much, 0.9 to 1.0 times across
those of masks of another video."""

_OF_ALL = (
    *("label_change", "flow_consistency", "confidence", "unsure"),
    *("label_change_before", "flow_consistency_before"),
)
_OF_COMPUTED = ("similarity", "updated_fraction")
"""Measured quantities by the frames that they are the mean of."""


@dataclass(slots=True)
class Mean:
    """Mean of measured values."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        """Add a value; None if it was not measured."""
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        """None if nothing was measured."""
        return self.total / self.count if self.count else None


@dataclass(slots=True)
class Summary:
    """Totals over the frames written so far; ``shares`` (K,) are sums over frames."""

    shares: NDArray[np.float64]
    frames: int = 0
    repeated: int = 0
    """Frames that repeat the picture of the one before. The fields below count the others."""
    keyframes: int = 0
    filled: int = 0
    """Frames without a mask that got one."""
    means: dict[str, Mean] = field(default_factory=dict)
    """By what was measured: columns of frames.csv, ``keyframe_ms``, ``non_keyframe_ms``, and of masks ``contrast``, how
    much more the picture changes across their edges than inside."""
    phases: PhaseChanges = field(default_factory=PhaseChanges)

    def mean(self, name: str) -> Mean:
        """The mean of a quantity, of nothing if it was not measured."""
        return self.means.setdefault(name, Mean())

    def add(self, row: FrameRow, shares: NDArray[np.float64]) -> None:
        """Add one frame: its measurements and the (K,) ``shares`` of its classes."""
        self.frames += 1
        self.shares += shares
        is_copy = row.model_ms is None  # of the result of the frame before
        for name in _OF_ALL if is_copy else (*_OF_ALL, *_OF_COMPUTED):
            self.mean(name).add(getattr(row, name))
        if is_copy:
            self.repeated += 1
            return
        self.keyframes += row.is_keyframe
        self.phases.add(is_keyframe=row.is_keyframe, label_change=row.label_change)
        self.mean("keyframe_ms" if row.is_keyframe else "non_keyframe_ms").add(row.model_ms)

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON types without losing precision."""
        return asdict(self) | {"shares": self.shares.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Summary:
        """Restore what ``to_json`` returned."""
        means = {name: Mean(**mean) for name, mean in content["means"].items()}
        shares = np.array(content["shares"], np.float64)
        return cls(**{**content, "shares": shares, "means": means, "phases": PhaseChanges(**content["phases"])})


def build_report(
    writer: ResultWriter,
    model: LoadedModel,
    options: InferenceOptions,
    frames: FrameSource,
    *,
    live: NewestFrames | None,
    exported: Exported,
    run: Mapping[str, Any] | None,
) -> Report:
    """Make the report of a run whose files are complete.

    ``run`` is its identity, which tells whether it can be resumed.
    """
    plan, summary = writer.plan, writer.summary
    lost = () if live is None or live.lost is None else (str(live.lost),)
    warnings = [*frames.warnings, *lost, *exported.notes]
    if writer.audio and writer.audio.startswith("dropped"):
        warnings.append(f"audio {writer.audio}")
    card = model.card
    # Card scores are measured with its defaults: a model that was measured without sparse attention lacks nothing.
    misses = not card.measured or (options.sides == "one" and options.threshold > 0)
    if not card.config.repairs and misses and options.mode == "tfc" and options.uses_memory:
        warnings.append(f"model {card.name} is {DESCRIPTION}")
    masks = plan.given
    if masks is not None:
        warnings += _mask_warnings(masks, summary, plan.info)
    return Report(
        tfcseg=version("tfcseg"),
        input=_input_facts(writer, frames, live),
        model=model_facts(model),
        options=option_facts(model, options),
        speed=_speed_facts(writer),
        stability=StabilityFacts(
            label_change=summary.mean("label_change").value,
            flow_consistency=summary.mean("flow_consistency").value,
            optical_flow=writer.optical_flow,
            similarity=summary.mean("similarity").value,
            updated_fraction=summary.mean("updated_fraction").value,
            keyframes=summary.keyframes,
            pulse=summary.phases.pulse,
        ),
        confidence=ConfidenceFacts(
            summary.mean("confidence").value,
            summary.mean("unsure").value,
            plan.options.unsure_below,
            model.temperature,
            model.calibration_error,
        ),
        classes=_class_facts(plan.labels, summary),
        outputs=writer.outputs | exported.files,
        warnings=tuple(warnings),
        steady=None if masks is None else _steady_facts(masks, summary),
        run=run,
    )


def option_facts(model: Known, options: InferenceOptions) -> OptionFacts:
    """Every option that determines the labels, besides input and weights."""
    return OptionFacts(
        **asdict(options), device=str(model.device), precision=str(model.precision).removeprefix("torch.")
    )


def _input_facts(writer: ResultWriter, frames: FrameSource, live: NewestFrames | None) -> InputFacts:
    info, (start_s, end_s) = writer.plan.info, writer.plan.range_s
    return InputFacts(
        path=info.path,
        frames_decoded=frames.frames_decoded if live is None else writer.summary.frames,
        frames_declared=info.frames_declared,
        width=info.width,
        height=info.height,
        frame_rate=info.frame_rate,
        duration_s=info.duration_s,
        rotation=info.rotation,
        audio=writer.audio if info.audio is None else f"{info.audio} ({writer.audio or 'not written'})",
        start_s=start_s,
        end_s=end_s,
        pixel_aspect=info.pixel_aspect,
        frames_repeated=writer.summary.repeated,
        frames_dropped=0 if live is None else live.dropped,
    )


def _steady_facts(masks: MaskFolder, summary: Summary) -> SteadyFacts:
    return SteadyFacts(
        masks=str(masks.path),
        given=len(masks.files),
        filled=summary.filled,
        label_change=summary.mean("label_change_before").value,
        flow_consistency=summary.mean("flow_consistency_before").value,
    )


def _speed_facts(writer: ResultWriter) -> SpeedFacts:
    summary, wall_s = writer.summary, writer.wall_s()
    # A live source repeats frames in place of late ones, which does not count as speed.
    frames = summary.frames - (summary.repeated if writer.plan.info.source.is_live else 0)
    keyframe_ms, non_keyframe_ms = summary.mean("keyframe_ms"), summary.mean("non_keyframe_ms")
    model_s = (keyframe_ms.total + non_keyframe_ms.total) / 1000
    return SpeedFacts(
        wall_s=wall_s,
        fps=frames / wall_s,
        model_fps=frames / model_s if model_s else None,
        keyframe_ms=keyframe_ms.value,
        non_keyframe_ms=non_keyframe_ms.value,
        resumes=writer.resumes,
    )


def _mask_warnings(masks: MaskFolder, summary: Summary, info: VideoInfo) -> list[str]:
    """Warnings about unusual masks."""
    warnings = []
    missing = summary.frames - len(masks.files)
    if missing:
        left = missing - summary.filled
        warnings.append(
            f"{missing} of {summary.frames} frames have no mask in {masks.path}: {summary.filled} got one from those "
            f"around them, {left} {'has' if left == 1 else 'have'} none"
        )
    contrast = summary.mean("contrast").value
    if contrast is not None and contrast < _LEAST_CONTRAST:
        warnings.append(
            f"edges of the masks in {masks.path} are not where {info.path} has any: are they of another video?"
        )
    return warnings


def _class_facts(labels: LabelSet, summary: Summary) -> tuple[ClassFacts, ...]:
    shares = summary.shares / max(1, summary.frames)
    return tuple(
        ClassFacts(index, name, float(share))
        for index, (name, share) in enumerate(zip(labels.names, shares, strict=True))
        if share > 0 and math.isfinite(share)
    )
