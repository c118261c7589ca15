"""Targets for video consistency on unlabelled clips: the teachers' labels, averaged over time.

Shapes: T frames, H W their size, G the teachers' grid, A ADE31's classes, V Pascal VOC's, K classes of the target.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import UsageError
from tfcseg.labels.label_sets import ADE31, NO_CLASS, SCENES, LabelSet
from tfcseg.media.frames import Image
from tfcseg.metrics.scores import Labels
from tfcseg.research.held_out.networks import open_teacher
from tfcseg.training.fusion import fuse_teachers, to_bytes
from tfcseg.training.labelling import steady_labels
from tfcseg.training.teachers import Teacher, soft_labels

HALF = 128
"""Of 255: positions have a target if the probability of a class is larger."""

_NEVER_CONSTANT = (NO_CLASS, NO_CLASS - 1)
"""Alternating values of positions without a target: they are constant in no window, so VC ignores them."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipTargets:
    """Targets of a clip; ``grids`` is (T, G, G) class indices, NO_CLASS where teachers are not confident."""

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
            enlarged = cv2.resize(grid, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            target = np.asarray(enlarged, dtype=np.uint8)
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
    return steady_labels(frames, np.stack([soft_labels(teachers, frame, crops=False) for frame in frames]))


def surest(soft: NDArray[np.uint8]) -> Labels:
    """(G, G, K) probabilities -> (G, G) classes, NO_CLASS where none is confident."""
    return np.where(soft.max(axis=-1) > HALF, soft.argmax(axis=-1), NO_CLASS).astype(np.uint8)
