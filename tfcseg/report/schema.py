"""The schema of report.json and frames.csv, and the conditions that all results state.

Units are in the names, sizes in pixels, shares 0 to 1. A number that was not measured is None (null or empty in files).
"""

from __future__ import annotations

import csv
import dataclasses
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfcseg.files import decimals_of, output_errors
from tfcseg.machine import device_name, library_versions
from tfcseg.model.options import InferenceOptions

if TYPE_CHECKING:
    from tfcseg.weights.loading import LoadedModel

SCHEMA = 1  # version of the files; grows when a key changes its meaning or is removed


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

    label_change: float | None  # without cuts
    flow_consistency: float | None
    optical_flow: str | None  # which optical flow was followed
    similarity: float | None
    updated_fraction: float | None
    keyframes: int
    pulse: float | None = None
    """Greatest mean label change of a phase of the keyframe interval ÷ mean over phases, without cuts."""
    cuts: int | None = None  # frames that show another scene than the one before; None: nobody knows without flow


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
    void: int | None  # value of pixels without a class
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

    @property
    def unlabelled(self) -> float:
        """Share of the pixels that have no class."""
        return round(1 - sum(each.share for each in self.classes), 6)


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


@dataclass(frozen=True, slots=True)
class FrameRow:
    """Facts of one frame; the fields are the columns. None, NaN and infinities become empty cells."""

    frame: int  # 0-based
    time_s: float
    is_keyframe: bool  # 1 or 0 in the file
    similarity: float | None  # mean over the grid
    updated_fraction: float | None
    label_change: float | None
    flow_consistency: float | None
    model_ms: float | None  # none: nothing was computed, the rest of the row is that of the frame before
    is_held: bool = False  # it shows the picture of the frame before
    confidence: float | None = None  # mean probability that a label is right
    unsure: float | None = None  # share of the labels whose probability is below a half, or what --unsure says
    label_change_before: float | None = None  # of the masks that were given; a column of `tfcseg steady` only
    flow_consistency_before: float | None = None  # likewise
    source: str = ""  # its file; there is such a column for folders of images only


def columns_for(*, has_sources: bool = False, has_before: bool = False) -> tuple[str, ...]:
    """The columns of a table, with those that only some runs have."""
    names = [item.name for item in dataclasses.fields(FrameRow)]
    return tuple(
        name for name in names if (has_before or not name.endswith("_before")) and (has_sources or name != "source")
    )


class FrameTable:
    """Writes frames.csv row by row: what is done is on disk even if the run is cut short. Raises OutputError.

    Rows are added to ``keep_bytes`` of a table that an earlier run has begun. ``columns``: see `columns_for`.
    """

    def __init__(self, path: Path, keep_bytes: int = 0, columns: Sequence[str] = columns_for()) -> None:
        self._columns = columns
        self._errors = partial(output_errors, f"cannot write {str(path)!r}")
        with self._errors():
            if keep_bytes:
                os.truncate(path, keep_bytes)
            self._file = path.open("a" if keep_bytes else "w", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        if not keep_bytes:
            self._write_row(self._columns)

    def write(self, row: FrameRow) -> None:
        """Append ``row`` and hand it to the operating system."""
        self._write_row([_cell(name, getattr(row, name)) for name in self._columns])

    @property
    def size_bytes(self) -> int:
        """Of all rows written so far."""
        return os.fstat(self._file.fileno()).st_size

    def sync(self) -> None:
        """Wait until all rows written so far would survive a power cut; may be called from any thread."""
        with self._errors():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; further calls do nothing."""
        with self._errors():
            self._file.close()

    def _write_row(self, cells: Sequence[str]) -> None:
        with self._errors():
            try:
                self._writer.writerow(cells)
                self._file.flush()
            except OSError:
                with suppress(OSError):  # closing tries to write the same row again
                    self._file.close()
                raise


def _cell(name: str, value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return ""
    if isinstance(value, numbers.Integral | np.bool_):
        return str(int(value))
    return f"{float(value):.{decimals_of(name)}f}"
