"""Losses of eq. 12, L = L_seg + L_bce.

Shapes: B frames, K classes, h w label grid. A loss is a (sum, weight) pair, so that several processes can compute the
mean over their joint batch, not a mean of means.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tfcseg.labels.label_sets import NO_CLASS

FOCAL_GAMMA = 1.0
"""L_bce is a focal loss with γ = 1, since changes are rare (paper, Training)."""


class WeightedSum(NamedTuple):
    """Numerator Σ w·l and denominator Σ w of a mean loss."""

    total: Tensor
    weight: Tensor

    def mean(self) -> Tensor:
        """Σ w·l / Σ w; 0 if all weights are 0."""
        return self.total / self.weight.clamp_min(1e-6)


def soft_cross_entropy(logits: Tensor, soft: Tensor) -> WeightedSum:
    """Cross entropy with soft labels, weighted by their confidence.

    logits (B, K, h, w); soft (B, K, h, w) uint8, 255 = certain, all 0 = no label. The weight of a position is its
    largest probability, so that uncertain teachers count less.
    """
    probabilities = soft.float() / 255.0
    confidence = probabilities.amax(dim=1)
    loss = -(probabilities * logits.float().log_softmax(dim=1)).sum(dim=1)
    return WeightedSum((confidence * loss).sum(), confidence.sum().detach())


def hard_cross_entropy(logits: Tensor, labels: Tensor) -> WeightedSum:
    """Cross entropy of logits (B, K, h, w), resized to the labels (B, H, W) int64; NO_CLASS does not count."""
    enlarged = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(enlarged, labels, ignore_index=NO_CLASS, reduction="sum")
    return WeightedSum(total, (labels != NO_CLASS).sum().float())


def similarity_loss(w_hat: Tensor, unchanged: Tensor, weight: Tensor) -> WeightedSum:
    """L_bce: ŵ_t (B, h, w) in [0, 1] should tell whether the label is ``unchanged`` (B, h, w) in {0, 1} from k to t.

    Focal loss with γ = FOCAL_GAMMA and no class weights (the paper names no α). ``weight`` (B, h, w) is 0 where a label
    is unknown. The paper supervises ŵ_t, not w_t, so opposite features (w_t < 0) have no gradient.
    """
    right = torch.where(unchanged > 0.5, w_hat, 1 - w_hat).float().clamp(1e-4, 1.0)
    loss = -((1 - right) ** FOCAL_GAMMA) * right.log()
    return WeightedSum((weight * loss).sum(), weight.sum().detach())


def divergence(logits: Tensor, target: Tensor) -> WeightedSum:
    """Kullback-Leibler divergence of the classes of ``logits`` (N, K) from those of ``target`` (N, K)."""
    total = F.kl_div(
        logits.float().log_softmax(dim=1), target.float().log_softmax(dim=1), reduction="sum", log_target=True
    )
    return WeightedSum(total, torch.tensor(float(len(logits)), device=logits.device))
