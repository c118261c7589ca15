"""Losses of eq. 12: L = L_seg + L_bce.

Shapes: B frames, K classes, h w label grid. Every loss is a (sum, weight) pair, so that the mean over several processes
is the mean over the doubled batch and not a mean of means.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_GAMMA = 1.0
"""Changes are rare (paper, Training): L_bce is a focal loss with γ = 1."""


class WeightedSum(NamedTuple):
    """A loss before its division: Σ w·l and Σ w."""

    total: Tensor
    weight: Tensor

    def mean(self) -> Tensor:
        """Σ w·l / Σ w; 0 where nothing counts."""
        return self.total / self.weight.clamp_min(1e-6)


def soft_cross_entropy(logits: Tensor, soft: Tensor) -> WeightedSum:
    """Cross entropy against soft labels, weighted by their confidence.

    logits (B, K, h, w); soft (B, K, h, w) uint8, 255 = certain, all 0 = no label. The weight of a position is its
    largest probability: where the teachers disagree or doubt, the student is left freer.
    """
    probabilities = soft.float() / 255.0
    confidence = probabilities.amax(dim=1)
    loss = -(probabilities * logits.float().log_softmax(dim=1)).sum(dim=1)
    return WeightedSum((confidence * loss).sum(), confidence.sum().detach())


def hard_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> WeightedSum:
    """Cross entropy of logits (B, K, h, w), resized to the labels (B, H, W) int64."""
    enlarged = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(enlarged, labels, ignore_index=ignore_index, reduction="sum")
    return WeightedSum(total, (labels != ignore_index).sum().float())


def similarity_loss(w_hat: Tensor, unchanged: Tensor, weight: Tensor) -> WeightedSum:
    """L_bce: ŵ_t (B, h, w) in [0, 1] against "the label at this position is the same at k and t" (B, h, w) in {0, 1}.

    Focal with γ = FOCAL_GAMMA, both kinds weighted alike (the paper names no α). ``weight`` (B, h, w) is 0 where a
    label is unknown. The paper supervises ŵ_t, not w_t: opposite features (w_t < 0) teach nothing.
    """
    right = torch.where(unchanged > 0.5, w_hat, 1 - w_hat).float().clamp(1e-4, 1.0)
    loss = -((1 - right) ** FOCAL_GAMMA) * right.log()
    return WeightedSum((weight * loss).sum(), weight.sum().detach())
