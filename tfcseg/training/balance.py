"""Draw photos of rare classes more often.

Rare class sampling as in DAFormer (Hoyer et al., CVPR 2022, sec. 3.3): draw a class, then a photo that shows it. Both
draws together are one weight per photo.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tfcseg.training.labelling import Still


def class_shares(stills: Sequence[Still]) -> NDArray[np.float64]:
    """(N, K): share of each class in the soft labels of each still; all 0 without labels."""
    # Every fourth row and column: labels are smooth, and all files are read before training starts.
    shares = [np.load(still.labels, mmap_mode="r")[::4, ::4].sum((0, 1), dtype=np.float64) for still in stills]
    stacked = np.stack(shares)
    return np.asarray(stacked / np.maximum(stacked.sum(1, keepdims=True), 1), np.float64)


def rarity_weights(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of each still in drawing, (N,) with mean 1, from class shares (N, K).

    Every class that occurs is drawn equally often: P(still) = 1/K · Σ_k share_k(still) / Σ_j share_k(j).
    """
    frequency = shares.mean(0)
    seen = frequency > 0
    if not seen.any():
        return np.ones(len(shares))
    return np.asarray((shares[:, seen] / frequency[seen]).mean(1), np.float64)
