"""Teachers and students with the same interface, image in, labels out; and teachers that label clips together.

Shapes: H W image, T frames, G the teachers' grid, A ADE31's classes, V Pascal VOC's, K classes of the target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tfcseg.drawing.render import shrink_labels
from tfcseg.errors import DataError, UsageError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.labels.label_sets import ADE31, NO_CLASS, SCENES, VOC21, LabelSet, distinct_palette
from tfcseg.media.frames import Image
from tfcseg.metrics.scores import Labels
from tfcseg.report.schema import Conditions, ModelFacts, conditions, model_facts
from tfcseg.training.fusion import fuse_teachers, to_bytes
from tfcseg.training.labelling import steady_labels
from tfcseg.training.teachers import Teacher, soft_labels
from tfcseg.weights.loading import LoadedModel

TEACHER_LABELS = {len(labels): labels for labels in (ADE31, LabelSet("voc21", VOC21, distinct_palette(len(VOC21))))}
"""Known teachers' classes, by their number."""
HALF = 128  # of 255: positions have a target if the probability of a class is larger
_NEVER_CONSTANT = (NO_CLASS, NO_CLASS - 1)
"""Alternating values of positions without a target: they are constant in no window, so VC ignores them."""


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """Identity of a network, without its path."""

    name: str
    role: Literal["teacher", "student"]
    label_set: str
    classes: int
    sha256: str
    input: str  # preprocessing of images


class Network(NamedTuple):
    """A network, image in, labels out."""

    facts: NetworkFacts
    labels: LabelSet
    predict: Callable[[Image, tuple[int, int]], Labels]
    """Class indices of an (H, W, 3) image at a size (height, width)."""


def teacher_network(path: Path) -> Network:
    """Open a teacher, whose input is the whole image scaled to a square; see `open_teacher`."""
    teacher, labels = open_teacher(path)
    height, width = teacher.size
    facts = NetworkFacts(
        name=path.stem,
        role="teacher",
        label_set=labels.name,
        classes=len(labels),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        input=f"the image squeezed to {width}×{height}",
    )

    def predict(image: Image, size: tuple[int, int]) -> Labels:
        return shrink_labels(teacher.labels(image), size)

    return Network(facts, labels, predict)


def student_network(model: LoadedModel) -> Network:
    """A tfcseg model in mode ``image``, at its default size."""
    options = checked_options(model, mode="image")
    network, labels = IntervalNetwork(model, options), model.labels
    facts = NetworkFacts(
        name=model.card.name,
        role="student",
        label_set=labels.name,
        classes=len(labels),
        sha256=model.sha256,
        input=f"mode image, short side {options.keyframe_size}",
    )
    return Network(facts, labels, lambda image, size: network.run([image], size)[0].labels)


def open_teacher(path: Path) -> tuple[Teacher, LabelSet]:
    """Load a teacher with its classes; DataError without such a file, or for an unknown number of classes."""
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


@dataclass(frozen=True, slots=True, eq=False)
class ClipTargets:
    """Targets for video consistency on an unlabelled clip: the teachers' labels, averaged over time.

    ``grids`` is (T, G, G) class indices, NO_CLASS where teachers are not confident.
    """

    labels: LabelSet
    grids: Labels

    @property
    def sure(self) -> float:
        """Share of positions with a target."""
        return float(np.mean(self.grids != NO_CLASS))

    def at(self, size: tuple[int, int]) -> Iterator[Labels]:
        """Yield an (H, W) target per frame for `VideoConsistency`; ``size`` is (height, width).

        Positions without a target have values that are not classes of ``labels``.
        """
        for index, grid in enumerate(self.grids):
            target = shrink_labels(grid, size)
            yield np.where(target == NO_CLASS, np.uint8(_NEVER_CONSTANT[index % 2]), target)


class Judges:
    """Teachers that label clips together: ADE31's, and VOC's for further classes."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        named = [open_teacher(Path(path)) for path in paths]
        self._scene: list[Teacher] = [teacher for teacher, labels in named if labels.name == ADE31.name]
        self._things: list[Teacher] = [teacher for teacher, labels in named if labels.name != ADE31.name]
        if not self._scene:
            raise UsageError(f"no teacher has the classes of {ADE31.name}; add one, since targets need it")
        self.names = tuple(Path(path).stem for path in paths)
        self.labels = SCENES if self._things else ADE31

    def label(self, frames: Sequence[Image]) -> ClipTargets:
        """Label all ``frames`` of a clip, average along optical flow, and keep confident labels."""
        scene = _steadied(self._scene, frames)
        if not self._things:
            return ClipTargets(self.labels, np.stack([surest(soft) for soft in scene]))
        things = _steadied(self._things, frames)
        fused = (to_bytes(fuse_teachers(one, other)) for one, other in zip(scene, things, strict=True))
        return ClipTargets(self.labels, np.stack([surest(soft) for soft in fused]))


def _steadied(teachers: Sequence[Teacher], frames: Sequence[Image]) -> NDArray[np.uint8]:
    """Probabilities (T, G, G, A) or (T, G, G, V), averaged over time; 255 = certain."""
    return steady_labels(frames, np.stack([soft_labels(teachers, frame, tiles=False) for frame in frames]))


def surest(soft: NDArray[np.uint8]) -> Labels:
    """(G, G, K) probabilities -> (G, G) classes, NO_CLASS where none is confident."""
    return np.where(soft.max(axis=-1) > HALF, soft.argmax(axis=-1), NO_CLASS).astype(np.uint8)
