"""Confidence against accuracy: expected calibration error, and the likeliest temperature.

Letters: N labels, S temperatures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BINS = 15
_LEAST = 1e-6  # probability: a confident wrong label must not have infinite cost


class CalibrationMeter:
    """Counts, for each of ``temperatures`` (S,), how confident labels would be and how many of them are right."""

    def __init__(self, temperatures: NDArray[np.float64]) -> None:
        self.temperatures = temperatures
        self._labels, self._right = (np.zeros((len(temperatures), _BINS), np.int64) for _ in range(2))
        self._confidence = np.zeros((len(temperatures), _BINS))
        self._log_loss = np.zeros(len(temperatures))

    def update(self, logits: NDArray[np.float32], is_right: NDArray[np.bool_]) -> None:
        """Add labels: their ``logits`` (N, K), and whether the largest names the right class (N,)."""
        behind = logits - logits.max(axis=1, keepdims=True)
        for row, temperature in enumerate(self.temperatures):
            sure = 1 / np.exp(behind / temperature).sum(axis=1)
            chance = np.clip(np.where(is_right, sure, 1 - sure), _LEAST, 1)
            self._log_loss[row] -= float(np.log(chance).sum())
            bins = np.minimum((sure * _BINS).astype(np.int64), _BINS - 1)
            self._labels[row] += np.bincount(bins, minlength=_BINS)
            self._right[row] += np.bincount(bins[is_right], minlength=_BINS)
            self._confidence[row] += np.bincount(bins, weights=sure, minlength=_BINS)

    @property
    def count(self) -> int:
        """Number of labels added."""
        return int(self._labels[0].sum())

    @property
    def accuracy(self) -> float:
        """Share of the labels that are right; NaN without any."""
        return float(self._right[0].sum() / self.count) if self.count else float("nan")

    @property
    def errors(self) -> NDArray[np.float64]:
        """(S,) expected calibration error: mean gap between confidence and accuracy over 15 bins of confidence.

        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
        """
        gaps = np.abs(self._confidence - self._right)
        return np.asarray(gaps.sum(axis=1) / max(1, self.count))

    @property
    def best(self) -> int:
        """Position of the temperature with the greatest likelihood."""
        return int(self._log_loss.argmin())
