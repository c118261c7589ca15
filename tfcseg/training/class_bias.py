"""Fit the biases of classes after training, since pictures of rare classes were drawn more often than they occur.

A network learns the frequency of classes in its training data (Menon et al., "Long-tail learning via logit adjustment",
ICLR 2021). The biases of the classifier are fitted to the mean IoU on pictures drawn evenly.

Shapes: N positions, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tfcseg.training.datasets import Sample

STEPS = (0.5, 0.25, 0.25, 0.125)
"""Step of each round through the classes."""

LIMIT = 1.25
"""Largest change of a bias, since there are few pictures of rare classes."""

LEAST = 300
"""Fewest labelled positions of a class; other classes keep their biases."""

EVERY = 3
"""Every third row and column of the labels is used."""

SURE = 0.5
"""Smallest probability of a label that is used."""


def fit_biases(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Biases (K,) to add to ``logits`` (N, K) for a larger mean IoU with ``labels`` (N,), fitted class by class."""
    classes = logits.shape[1]
    biases, logits = np.zeros(classes, np.float32), logits.copy()
    wanted = np.bincount(labels, minlength=classes)
    known = wanted >= LEAST
    rarest_first = sorted(np.flatnonzero(known), key=lambda k: int(wanted[k]))
    for step in STEPS:
        for k in rarest_first:
            own = logits[:, k].copy()
            logits[:, k] = -np.inf
            second = logits.argmax(axis=1)
            lead = own - logits.max(axis=1)
            shifts = [shift * step for shift in (0, -1, 1, -2, 2) if abs(biases[k] + shift * step) <= LIMIT]
            scores = [_mean_iou(np.where(lead + shift > 0, k, second), labels, wanted, known) for shift in shifts]
            biases[k] += shifts[int(np.argmax(scores))]
            logits[:, k] = own + shifts[int(np.argmax(scores))]
    return biases


def _mean_iou(
    found: NDArray[np.intp], labels: NDArray[np.uint8], wanted: NDArray[np.intp], known: NDArray[np.bool_]
) -> float:
    hit = np.bincount(labels[found == labels], minlength=len(wanted))
    union = wanted + np.bincount(found, minlength=len(wanted)) - hit
    return float((hit[known] / union[known]).mean())


def balance_classes(predict: Callable[[Sample], Tensor], samples: Dataset[Sample]) -> Tensor:
    """Fit biases (K,) on ``samples`` with soft labels; ``predict`` returns the logits (T, K, s, s) of a sample."""
    logits, labels = [], []
    for number in range(len(samples)):  # type: ignore[arg-type]
        sample = samples[number]
        found, soft = (_positions(maps) for maps in (predict(sample), sample.labels))
        share, label = soft.max(dim=1)
        is_sure = share > SURE * 255
        logits.append(found[is_sure].half())
        labels.append(label[is_sure].byte())
    return torch.from_numpy(fit_biases(torch.cat(logits).float().numpy(), torch.cat(labels).numpy()))


def _positions(maps: Tensor) -> Tensor:
    """Take every few positions of (T, K, s, s): (N, K)."""
    return maps.cpu()[:, :, ::EVERY, ::EVERY].permute(0, 2, 3, 1).flatten(0, 2).float()
