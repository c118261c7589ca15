"""Totals over the frames of a run, and the report made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.media.frames import VideoInfo
from tfcseg.metrics.consistency import PhaseChanges
from tfcseg.model.options import InferenceOptions
from tfcseg.report import (
    ClassFacts,
    ConfidenceFacts,
    FrameRow,
    InputFacts,
    OptionFacts,
    Report,
    SpeedFacts,
    StabilityFacts,
    model_facts,
)
from tfcseg.weights.convert import DESCRIPTION
from tfcseg.weights.loading import LoadedModel

_MEANS = (
    "label_change",
    "flow_consistency",
    "similarity",
    "updated_fraction",
    "keyframe_ms",
    "non_keyframe_ms",
    "confidence",
    "unsure",
)


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
    label_change: Mean = field(default_factory=Mean)
    flow_consistency: Mean = field(default_factory=Mean)
    similarity: Mean = field(default_factory=Mean)
    updated_fraction: Mean = field(default_factory=Mean)
    keyframe_ms: Mean = field(default_factory=Mean)
    non_keyframe_ms: Mean = field(default_factory=Mean)
    confidence: Mean = field(default_factory=Mean)
    unsure: Mean = field(default_factory=Mean)
    phases: PhaseChanges = field(default_factory=PhaseChanges)

    def add(self, row: FrameRow, shares: NDArray[np.float64]) -> None:
        """Add one frame: its measurements and the (K,) ``shares`` of its classes."""
        self.frames += 1
        self.shares += shares
        self.label_change.add(row.label_change)
        self.flow_consistency.add(row.flow_consistency)
        self.confidence.add(row.confidence)
        self.unsure.add(row.unsure)
        if row.model_ms is None:  # copies the result of the frame before
            self.repeated += 1
            return
        self.keyframes += row.is_keyframe
        self.phases.add(is_keyframe=row.is_keyframe, label_change=row.label_change)
        self.similarity.add(row.similarity)
        self.updated_fraction.add(row.updated_fraction)
        (self.keyframe_ms if row.is_keyframe else self.non_keyframe_ms).add(row.model_ms)

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON types without losing precision."""
        means: dict[str, Mean] = {name: getattr(self, name) for name in _MEANS}
        return {
            "frames": self.frames,
            "repeated": self.repeated,
            "keyframes": self.keyframes,
            "shares": self.shares.tolist(),
            "phases": asdict(self.phases),
            **{name: [mean.total, mean.count] for name, mean in means.items()},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Summary:
        """Restore what ``to_json`` returned."""
        means = {name: Mean(*content[name]) for name in _MEANS}
        phases = PhaseChanges(**content["phases"])
        shares = np.array(content["shares"], np.float64)
        return cls(shares, content["frames"], content["repeated"], content["keyframes"], phases=phases, **means)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts for the report besides the totals."""

    model: LoadedModel
    options: InferenceOptions
    info: VideoInfo
    frames_decoded: int
    warnings: tuple[str, ...]
    optical_flow: str | None
    audio: str | None
    """What happened to the sound; None if no video was written."""
    range_s: tuple[float | None, float | None]
    """Start and end of the requested part."""
    outputs: dict[str, str]
    wall_s: float
    resumes: int
    unsure_below: float
    """Labels with a lower probability count as unsure."""
    compile_s: float | None = None
    """Seconds spent compiling; None if nothing was compiled."""


def build_report(facts: RunFacts, summary: Summary, run: Mapping[str, Any] | None) -> Report:
    """Make the report of a finished run; ``run`` is its identity, which tells whether it can be resumed."""
    warnings = list(facts.warnings)
    if facts.audio and facts.audio.startswith("dropped"):
        warnings.append(f"audio {facts.audio}")
    card = facts.model.card
    options = facts.options
    # Card scores are measured with its defaults: a model that was measured without sparse attention lacks nothing.
    misses = options.sides == "one" or not card.measured
    if not card.config.repairs and misses and options.mode == "tfc" and options.uses_memory:
        warnings.append(f"model {card.name} is {DESCRIPTION}")
    return Report(
        tfcseg=version("tfcseg"),
        input=_input_facts(facts, summary),
        model=model_facts(facts.model),
        options=option_facts(facts.model, facts.options),
        speed=_speed_facts(facts, summary),
        stability=StabilityFacts(
            summary.label_change.value,
            summary.flow_consistency.value,
            facts.optical_flow,
            summary.similarity.value,
            summary.updated_fraction.value,
            summary.keyframes,
            summary.phases.pulse,
        ),
        confidence=ConfidenceFacts(
            summary.confidence.value,
            summary.unsure.value,
            facts.unsure_below,
            facts.model.temperature,
            facts.model.calibration_error,
        ),
        classes=_class_facts(facts.model, summary),
        outputs=facts.outputs,
        warnings=tuple(warnings),
        run=run,
    )


def option_facts(model: LoadedModel, options: InferenceOptions) -> OptionFacts:
    """Every option that determines the labels, besides input and weights."""
    return OptionFacts(
        **asdict(options), device=str(model.device), precision=str(model.precision).removeprefix("torch.")
    )


def _input_facts(facts: RunFacts, summary: Summary) -> InputFacts:
    info = facts.info
    return InputFacts(
        info.path,
        facts.frames_decoded,
        info.frames_declared,
        info.width,
        info.height,
        info.frame_rate,
        info.duration_s,
        info.rotation,
        facts.audio if info.audio is None else f"{info.audio} ({facts.audio or 'not written'})",
        *facts.range_s,
        pixel_aspect=info.pixel_aspect,
        frames_repeated=summary.repeated,
    )


def _speed_facts(facts: RunFacts, summary: Summary) -> SpeedFacts:
    model_s = (summary.keyframe_ms.total + summary.non_keyframe_ms.total) / 1000
    return SpeedFacts(
        facts.wall_s,
        summary.frames / facts.wall_s,
        summary.frames / model_s if model_s else None,
        summary.keyframe_ms.value,
        summary.non_keyframe_ms.value,
        facts.resumes,
        facts.compile_s,
    )


def _class_facts(model: LoadedModel, summary: Summary) -> tuple[ClassFacts, ...]:
    shares = summary.shares / max(1, summary.frames)
    return tuple(
        ClassFacts(index, name, float(share))
        for index, (name, share) in enumerate(zip(model.labels.names, shares, strict=True))
        if share > 0 and math.isfinite(share)
    )
