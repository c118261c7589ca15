"""What a run reports: the shape of report.json. Units are in the names, sizes in pixels, shares in 0..1.

A number that was not measured is None (null in the file).
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from tfcseg.outputs import replace_atomically

if TYPE_CHECKING:
    from tfcseg.weights import LoadedModel

SCHEMA = 1


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
    """What the weights file of ``model`` says of itself."""
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
class OptionFacts:
    """Everything that decides what the labels are, besides input and model."""

    mode: str
    keyframe_interval: int
    threshold: float
    size: int | None  # short side of the network's input
    device: str
    precision: str
    correlation: str
    keyframe_position: str
    compile: bool = False  # rounds differently
    keyframe_carry: float = 0.0


@dataclass(frozen=True, slots=True)
class SpeedFacts:
    """Frames per second of the whole run and of the network alone, and milliseconds per frame."""

    wall_s: float
    fps: float | None
    model_fps: float | None
    keyframe_ms: float | None
    non_keyframe_ms: float | None
    resumes: int = 0  # how often the run was continued; times then add up over all that counts of them
    compile_s: float | None = None  # part of wall_s that compiling the network took, before the first frame


@dataclass(frozen=True, slots=True)
class StabilityFacts:
    """Means over frames, and how many of the frames were keyframes."""

    label_change: float | None
    tc: float | None
    tc_flow: str | None  # which optical flow TC followed
    similarity: float | None
    updated_fraction: float | None
    keyframes: int


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
    classes: tuple[ClassFacts, ...]
    outputs: Mapping[str, str] = field(default_factory=dict)  # what was written -> path relative to the report
    warnings: tuple[str, ...] = ()


def write_json(path: Path, report: Report) -> None:
    """Write ``report`` as UTF-8 JSON; ``path`` appears complete or not at all. Raises OutputError."""
    text = json.dumps(to_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replace_atomically(path) as temporary:
        # A file name that is no valid UTF-8 reaches us with lone surrogates: as \udcxx they are valid JSON.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def to_json(value: object, decimals: int = 6) -> object:
    """``value`` in plain JSON types: dataclasses as objects, numbers rounded, None for NaN and infinities."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):  # NumPy's integers included, here as below
        return int(value)
    if isinstance(value, numbers.Real):
        return round(float(value), decimals) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
        return {name: to_json(getattr(value, name), decimals_of(name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [to_json(item) for item in value]
    raise TypeError(f"{type(value).__name__} cannot be part of a report")


def decimals_of(name: str) -> int:
    """How many decimals the quantity ``name`` deserves: three for speeds, six for seconds and shares."""
    return 3 if name.endswith(("_ms", "fps")) else 6
