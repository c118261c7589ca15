"""The schema of report.json, and the conditions that all results state.

Units are in the names, sizes in pixels, shares 0 to 1. A number that was not measured is None (null in the file).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tfcseg.machine import device_name, library_versions
from tfcseg.model.options import InferenceOptions

if TYPE_CHECKING:
    from tfcseg.weights.loading import LoadedModel

SCHEMA = 1
"""Version of the files; grows when a key changes its meaning or is removed."""


@dataclass(frozen=True, slots=True)
class InputFacts:
    """The source: as declared by the container and as decoded."""

    path: str
    frames_decoded: int
    frames_declared: int | None
    width: int
    height: int
    frame_rate: Fraction  # exact here, a number in the file
    duration_s: float | None
    rotation: int  # degrees that were undone
    audio: str | None
    start_s: float | None = None  # of the part that was asked for; None: from the beginning
    end_s: float | None = None  # None: to the end
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel over its height
    frames_repeated: int = 0  # of those decoded, how many show the picture of the one before and were not computed
    frames_dropped: int = 0  # frames of a live source that came too late; the one before is repeated in their place


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The network and the weights file it was read from."""

    name: str
    backbone: str
    sha256: str
    classes: int
    parameters: int
    description: str = ""
    trained_on: str = ""
    licence: str = ""


def model_facts(model: LoadedModel) -> ModelFacts:
    """Facts from the weights file of ``model``."""
    card = model.card
    return ModelFacts(
        name=card.name,
        backbone=card.config.backbone,
        sha256=model.sha256,
        classes=len(model.labels),
        parameters=model.parameters,
        description=card.description,
        trained_on=card.trained_on,
        licence=card.licence,
    )


@dataclass(frozen=True, slots=True)
class OptionFacts(InferenceOptions):
    """Every option that determines the labels, besides input and model."""

    device: str = ""
    precision: str = ""


@dataclass(frozen=True, slots=True)
class SpeedFacts:
    """Frames per second of the whole run and of the network alone, and milliseconds per frame."""

    wall_s: float
    fps: float | None
    model_fps: float | None
    keyframe_ms: float | None
    non_keyframe_ms: float | None
    resumes: int = 0  # how often the run was resumed; times then sum over all of its runs


@dataclass(frozen=True, slots=True)
class StabilityFacts:
    """Means over frames, and how many of the frames were keyframes."""

    label_change: float | None
    flow_consistency: float | None
    optical_flow: str | None  # which optical flow was followed
    similarity: float | None
    updated_fraction: float | None
    keyframes: int
    pulse: float | None = None  # greatest mean label change of a phase of the keyframe interval ÷ mean over phases


@dataclass(frozen=True, slots=True)
class ConfidenceFacts:
    """Confidence of the labels: means over frames, as shares; None if nothing was measured."""

    mean: float | None  # probability that a label is right
    unsure: float | None  # share of the labels whose probability is below unsure_below
    unsure_below: float
    temperature: float  # what logits are divided by
    calibration_error: float | None  # expected one, as a share, on the stills that the temperature is of; None: unknown


@dataclass(frozen=True, slots=True)
class SteadyFacts:
    """Masks that were made steady, as they were given."""

    masks: str  # folder
    given: int  # how many frames had one
    filled: int  # how many frames without one got one
    label_change: float | None  # means over frames, as in StabilityFacts
    flow_consistency: float | None


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """One class and its share of all pixels of the video."""

    index: int
    name: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Facts of one finished run."""

    schema: int = SCHEMA
    tfcseg: str  # version
    input: InputFacts
    model: ModelFacts
    options: OptionFacts
    speed: SpeedFacts
    stability: StabilityFacts
    confidence: ConfidenceFacts
    classes: tuple[ClassFacts, ...]
    outputs: Mapping[str, str] = field(default_factory=dict)  # what was written -> path relative to the report
    warnings: tuple[str, ...] = ()
    steady: SteadyFacts | None = None  # of `tfcseg steady`
    run: Mapping[str, str | float | bool | None] | None = None  # all that decided what was written; None: a stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Program, machine and libraries of a measurement."""

    schema: int = SCHEMA
    tfcseg: str  # version
    device: str
    device_name: str
    threads: int
    versions: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConditions(Conditions):
    """Those of the measurement of one model."""

    model: ModelFacts
    precision: str


def conditions(device: str = "cpu") -> dict[str, Any]:
    """Fields of `Conditions`."""
    import torch

    return {
        "tfcseg": version("tfcseg"),
        "device": device,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
    }


def model_conditions(model: LoadedModel) -> dict[str, Any]:
    """Fields of `ModelConditions`."""
    precision = str(model.precision).removeprefix("torch.")
    return {**conditions(str(model.device)), "model": model_facts(model), "precision": precision}
