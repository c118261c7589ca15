"""Teachers and students with the same interface: image in, labels out. Shapes: H W image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch

from tfcseg.errors import DataError, UsageError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.labels.label_sets import ADE31, VOC21, LabelSet, distinct_palette
from tfcseg.media.frames import Image
from tfcseg.metrics.scores import Labels
from tfcseg.report.schema import Conditions, ModelFacts, conditions, model_facts
from tfcseg.training.teachers import Teacher
from tfcseg.weights.loading import LoadedModel

TEACHER_LABELS = {len(labels): labels for labels in (ADE31, LabelSet("voc21", VOC21, distinct_palette(len(VOC21))))}
"""Known teachers' classes, by their number."""


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """Identity of a network, without its path."""

    name: str
    role: Literal["teacher", "student"]
    label_set: str
    classes: int
    sha256: str
    input: str
    """Preprocessing of images."""


class Network(Protocol):
    """A teacher or a student."""

    @property
    def facts(self) -> NetworkFacts:
        """Identity of the network."""

    @property
    def labels(self) -> LabelSet:
        """Classes of its predictions."""

    def predict(self, image: Image, size: tuple[int, int]) -> Labels:
        """Predict class indices of an (H, W, 3) image at ``size`` (height, width)."""


class TeacherNetwork:
    """A teacher, whose input is the whole image scaled to a square."""

    def __init__(self, path: Path) -> None:
        self.teacher, self.labels = open_teacher(path)
        height, width = self.teacher.size
        self.facts = NetworkFacts(
            name=path.stem,
            role="teacher",
            label_set=self.labels.name,
            classes=len(self.labels),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            input=f"the image squeezed to {width}×{height}",
        )

    def predict(self, image: Image, size: tuple[int, int]) -> Labels:
        """Predict class indices of an (H, W, 3) image at ``size`` (height, width)."""
        labels = cv2.resize(self.teacher.labels(image), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        return np.asarray(labels, dtype=np.uint8)


class StudentNetwork:
    """A tfcseg model in mode ``image``, at its default size."""

    def __init__(self, model: LoadedModel) -> None:
        options = checked_options(model, mode="image")
        self._network = IntervalNetwork(model, options)
        self.labels = model.labels
        self.facts = NetworkFacts(
            name=model.card.name,
            role="student",
            label_set=self.labels.name,
            classes=len(self.labels),
            sha256=model.sha256,
            input=f"mode image, short side {options.size}",
        )

    def predict(self, image: Image, size: tuple[int, int]) -> Labels:
        """Predict class indices of an (H, W, 3) image at ``size`` (height, width)."""
        return self._network.run([image], size)[0].labels


def open_teacher(path: Path) -> tuple[Teacher, LabelSet]:
    """Load a teacher with its classes; DataError without such a file, or for an unknown number of classes."""
    if not path.is_file():
        raise DataError(f"{path}: no such teacher; teachers are .tflite files")
    teacher = Teacher(path, threads=torch.get_num_threads())  # those of a worker may be few
    labels = TEACHER_LABELS.get(teacher.num_classes)
    if labels is None:
        known = " or ".join(f"{count} ({labels.name})" for count, labels in TEACHER_LABELS.items())
        raise DataError(f"teacher {path} has {teacher.num_classes} classes, not {known}; leave it out")
    return teacher, labels


def refuse_doubles(names: Sequence[str], what: str) -> None:
    """Raise UsageError for repeated names, which results could not distinguish."""
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UsageError(f"two {what} are called {double!r}; give one of them, or rename it")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutConditions(Conditions):
    """Machine and models of a measurement."""

    models: tuple[ModelFacts, ...]


def made_by(models: Sequence[LoadedModel]) -> dict[str, Any]:
    """Keyword arguments of `HeldOutConditions`."""
    device = str(models[0].device) if models else "cpu"
    return {**conditions(device), "models": tuple(model_facts(model) for model in models)}
