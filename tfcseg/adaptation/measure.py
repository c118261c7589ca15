"""Measure a network on unlabelled frames: stability, and agreement with its labels of single frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any, TypeAlias

import cv2
import numpy as np

from tfcseg.adaptation.own_labels import LEAST_FRAMES, Part, probabilities, shrunk
from tfcseg.errors import DataError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.inference.segment import segment_with
from tfcseg.media.frames import Image
from tfcseg.metrics.scores import Labels, VideoConsistency, percent
from tfcseg.model.options import InferenceOptions
from tfcseg.research.networks import ClipTargets, surest
from tfcseg.training.augment import by_channels
from tfcseg.training.labelling import steady_labels
from tfcseg.training.teachers import GRID
from tfcseg.weights.loading import LoadedModel

FRAMES = 120
"""Measured frames of all parts together, but at least `LEAST_FRAMES` of each."""

VC_FRAMES = 8

ONE_SIDE = "one_side"
SETTINGS: dict[str, dict[str, str]] = {
    "image": {"mode": "image"},
    "tfc": {},
    ONE_SIDE: {"sides": "one"},
}
"""Measured settings: every frame by itself, the model's defaults, and one side, where sparse attention is used."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A held-out part: images, the network's labels of each image, and these averaged over time."""

    images: list[Image]
    labels: list[Labels]
    targets: ClipTargets


Scores: TypeAlias = "dict[str, float | None]"
"""Percentages, None if undefined. ``vc8``: VC8 against the averaged labels, right or wrong. ``agreement``: pixels with
the label of mode ``image``. ``corrected``: the same, of the pixels where that label has changed since the keyframe."""


def hold_back(model: LoadedModel, parts: Sequence[Part], size: int) -> list[HeldBack]:
    """Label the first frames of the ``parts``, one by one, and keep them in memory at the network's input size."""
    network = IntervalNetwork(model, checked_options(model, mode="image", size=size))
    most = max(LEAST_FRAMES, FRAMES // len(parts))
    held = []
    for part in parts:
        images = [shrunk(frame.image, size) for frame in islice(part.frames(), most)]
        if len(images) < LEAST_FRAMES:
            what = "has fewer frames than it states; copy it into another file with ffmpeg first"
            raise DataError(f"{part.video} {what}")
        soft = [probabilities(network, image) for image in images]
        squares = np.stack([by_channels(lambda some: cv2.resize(some, (GRID, GRID)), each) for each in soft])
        targets = ClipTargets(model.labels, np.stack([surest(each) for each in steady_labels(images, squares)]))
        labels = [result.labels for image in images for result in network.run([image])]
        held.append(HeldBack(images, labels, targets))
    return held


def measure(model: LoadedModel, held: Sequence[HeldBack], size: int, **options: Any) -> Scores:
    """Score ``model`` with additional ``options``: the mean over parts."""
    used = checked_options(model, size=size, **options)
    scores = [_score(model, used, part) for part in held]
    return {name: _mean([score[name] for score in scores]) for name in scores[0]}


def _score(model: LoadedModel, options: InferenceOptions, part: HeldBack) -> Scores:
    consistency = VideoConsistency((VC_FRAMES,))
    size = (part.labels[0].shape[0], part.labels[0].shape[1])
    agreement: list[float] = []
    wrong = right = 0
    keyframe: Labels | None = None
    for target, own, frame in zip(
        part.targets.at(size), part.labels, segment_with(part.images, model, options), strict=True
    ):
        consistency.update(target, frame.labels)
        follows = frame.labels == own
        agreement.append(float(follows.mean()))
        if frame.is_keyframe:
            keyframe = own
        elif keyframe is not None:
            changed = keyframe != own
            wrong += int(np.count_nonzero(changed))
            right += int(np.count_nonzero(changed & follows))
    vc = consistency.result()[VC_FRAMES].vc.value
    return {
        "vc8": percent(vc),
        "agreement": 100 * fmean(agreement),
        "corrected": 100 * right / wrong if wrong else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), 2) if known else None
