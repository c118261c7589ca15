"""Fit a model's evidence curve: how much more often than by chance positions of a similarity share a label."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tfcseg.adaptation.own_labels import Part
from tfcseg.errors import DataError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.inference.steps import Steps
from tfcseg.model.alignment import move
from tfcseg.model.config import EVIDENCE
from tfcseg.model.evidence import LowFeatures, WeightedLogits
from tfcseg.options import OnStep
from tfcseg.weights.loading import LoadedModel

DISTANCE = 4
"""Step between sampled frames; each is compared with the next two."""

FRAMES = 12
"""Most sampled frames per clip."""

BORDER = 5
"""Size of the window, in cells, that must have two labels for a position to count; elsewhere nothing differs."""


class _Seen(NamedTuple):
    low: LowFeatures
    own: WeightedLogits


@torch.inference_mode()
def fit_evidence(model: LoadedModel, clips: Sequence[Part], *, size: int, on_progress: OnStep) -> tuple[float, ...]:
    """Fit the curve, e(w) at w = 0, 0.1, … 1, on excerpts of unlabelled videos, all with the same weight.

    ``size`` is the short side of the network's input. Raises DataError if no excerpt is longer than ``DISTANCE``
    frames; other failures are TfcsegErrors, too.
    """
    steps = Steps(IntervalNetwork(model, checked_options(model, sides="both", size=size)))
    same, other = np.zeros((2, len(EVIDENCE))), np.zeros((2, len(EVIDENCE)))
    pairs = 0
    for done, clip in enumerate(clips):
        on_progress(done, len(clips))
        seen: list[_Seen] = []
        for frame in islice(clip.frames(), 0, FRAMES * DISTANCE, DISTANCE):
            low = steps.low_features([frame.image])
            seen.append(_Seen(low[0], steps.own_logits([frame.image], low)[0]))
        for gap in (1, 2):
            for before, after in zip(seen, seen[gap:], strict=False):
                same += _agreement(steps, before, after) / len(seen)
                other += _agreement(steps, _upside_down(before), after) / len(seen)
                pairs += 1
    if not pairs:
        raise DataError(f"no clip has more than {DISTANCE} frames; give longer ones")
    return _curve(same, other)


def _upside_down(seen: _Seen) -> _Seen:
    """Flip a frame: a different scene with the same colours and labels."""
    low, own = ([part.flip(-2) for part in parts] for parts in seen)
    return _Seen(LowFeatures(*low), WeightedLogits(*own))


def _agreement(steps: Steps, before: _Seen, after: _Seen) -> NDArray[np.float64]:
    """(2, knots): weight of positions with the same label, and of all positions, by similarity.

    Both comparisons count: that of frames between keyframes, and that of keyframes with each other.
    """
    labels = after.own.logits.argmax(dim=1, keepdim=True)
    near_border = _is_near_border(labels)
    counts = np.zeros((2, len(EVIDENCE)))
    for found in (steps.compare_closely(before.low, after.low), steps.compare_closely(before.own, after.own)):
        moved, certain = (move(part, found.rows, 1) for part in (before.own.logits, before.own.weight))
        is_same = moved.argmax(dim=1, keepdim=True) == labels
        weight = (certain * after.own.weight * near_border).float()
        knot = (found.similarity.float().clamp(0, 1) * (len(EVIDENCE) - 1)).round().long().flatten().cpu().numpy()
        counted = [(weight * is_same).flatten().cpu().numpy(), weight.flatten().cpu().numpy()]
        by_knot = np.stack([np.bincount(knot, values, len(EVIDENCE)) for values in counted])
        counts += by_knot / max(float(weight.sum()), 1e-9)
    return counts


def _is_near_border(labels: Tensor) -> Tensor:
    """Whether a position has two labels around it: (1, 1, h, w) bool."""
    values = labels.float()
    greatest, least = (sign * F.max_pool2d(sign * values, BORDER, 1, BORDER // 2) for sign in (1, -1))
    return greatest != least


def _curve(same: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, ...]:
    """Agreement above chance, as a non-decreasing curve; counts are smoothed over knots."""
    share, chance = (_smooth(counts[0]) / np.maximum(_smooth(counts[1]), 1e-9) for counts in (same, other))
    beyond = np.clip((share - chance) / np.maximum(1 - chance, 1e-9), 0, 1)
    # Isotonic regression: pool neighbours that decrease.
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(beyond, _smooth(same[1]) + 1e-9, strict=True):
        pools.append((float(value), float(weight), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (low, light, few), (high, heavy, many) = pools.pop(), pools.pop()
            mean = (low * light + high * heavy) / (light + heavy)
            pools.append((mean, light + heavy, few + many))
    return tuple(round(value, 3) for value, _, knots in pools for _ in range(knots))


def _smooth(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.convolve(counts, [0.1, 0.8, 0.1], mode="same"))
