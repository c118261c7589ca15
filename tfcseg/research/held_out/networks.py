"""Teachers and students behind one face: an image in, labels out.

Letters: H, W image height and width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np

from tfcseg.errors import DataError, UsageError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.labels.label_names import VOC21
from tfcseg.labels.label_sets import ADE31, LabelSet, distinct_palette
from tfcseg.machine import available_cores
from tfcseg.media.frames import Image
from tfcseg.metrics.scores import Labels
from tfcseg.training.teachers import Teacher
from tfcseg.weights.loading import LoadedModel

TEACHER_LABELS = {len(labels): labels for labels in (ADE31, LabelSet("voc21", VOC21, distinct_palette(len(VOC21))))}
"""Classes of the teachers that we know, by how many they are."""


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """Which network it is, without the place where it lies."""

    name: str
    role: Literal["teacher", "student"]
    label_set: str
    classes: int
    sha256: str
    input: str
    """How an image reaches it."""


class Network(Protocol):
    """What is compared."""

    @property
    def facts(self) -> NetworkFacts:
        """Which network it is."""

    @property
    def labels(self) -> LabelSet:
        """Classes of what it predicts."""

    def predict(self, image: Image, size: tuple[int, int]) -> Labels:
        """Class indices of an (H, W, 3) image at ``size`` (height, width)."""


class TeacherNetwork:
    """A teacher on the whole image, squeezed to its square; its labels are stretched back."""

    def __init__(self, path: Path) -> None:
        self.teacher = open_teacher(path)
        self.labels = teacher_labels(self.teacher, path)
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
        """Class indices of an (H, W, 3) image at ``size`` (height, width)."""
        labels = cv2.resize(self.teacher.labels(image), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        return np.asarray(labels, dtype=np.uint8)


class StudentNetwork:
    """One of our models in mode ``image``, at the size that it was made for."""

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
        """Class indices of an (H, W, 3) image at ``size`` (height, width)."""
        return self._network.run([image], size)[0].labels


def open_teacher(path: Path) -> Teacher:
    """Read a teacher; DataError if there is none."""
    if not path.is_file():
        raise DataError(f"{path}: no such teacher; teachers are .tflite files")
    return Teacher(path, threads=available_cores())


def teacher_labels(teacher: Teacher, path: Path) -> LabelSet:
    """Classes of a teacher, told by their number; DataError for one that we do not know."""
    labels = TEACHER_LABELS.get(teacher.num_classes)
    if labels is None:
        known = " or ".join(f"{count} ({labels.name})" for count, labels in TEACHER_LABELS.items())
        raise DataError(f"teacher {path} knows {teacher.num_classes} classes, not {known}; leave it out")
    return labels


def refuse_doubles(names: Sequence[str], what: str) -> None:
    """UsageError for two of the same name, which results could not tell apart."""
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UsageError(f"two {what} are called {double!r}; give one of them, or rename it")
