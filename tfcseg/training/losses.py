"""Losses of eq. 12, L = L_seg + L_bce, and of steadiness.

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


def steadiness_loss(logits: Tensor, motion: Tensor) -> WeightedSum:
    """Cross entropy of two predictions of the same scene with their mean: they should agree, whatever they are (ours).

    logits (B, 2, K, s, s) of pairs; ``motion`` (B, 2, 3) takes pixels of the second image to the first, both of 4·s px.
    Positions outside the first image and pairs of unknown motion do not count.
    """
    side = logits.shape[-1]
    known = ~motion.isnan().any(dim=(1, 2))
    steps = 4 * torch.arange(side, device=logits.device, dtype=torch.float32) + 1.5  # centres of cells in px
    places = torch.stack([*torch.meshgrid(steps, steps, indexing="xy"), torch.ones(side, side, device=logits.device)])
    there = torch.einsum("bij,jyx->byxi", motion.nan_to_num(), places)
    there = (there + 0.5) / (2 * side) - 1  # pixels to [-1, 1]
    inside = (there.abs() < 1).all(dim=-1) & known[:, None, None]
    both = logits.float().log_softmax(dim=2)
    earlier = F.grid_sample(both[:, 0], there, mode="bilinear", padding_mode="border", align_corners=False)
    later = both[:, 1]
    mean = ((earlier.exp() + later.exp()) / 2).detach()
    loss = -0.5 * (mean * (earlier + later)).sum(dim=1)
    return WeightedSum((inside * loss).sum(), inside.sum().float())


def similarity_loss(w_hat: Tensor, unchanged: Tensor, weight: Tensor) -> WeightedSum:
    """L_bce: ŵ_t (B, h, w) in [0, 1] should tell whether the label is ``unchanged`` (B, h, w) in {0, 1} from k to t.

    Focal loss with γ = FOCAL_GAMMA and no class weights (the paper names no α). ``weight`` (B, h, w) is 0 where a label
    is unknown. The paper supervises ŵ_t, not w_t, so opposite features (w_t < 0) have no gradient.
    """
    right = torch.where(unchanged > 0.5, w_hat, 1 - w_hat).float().clamp(1e-4, 1.0)
    loss = -((1 - right) ** FOCAL_GAMMA) * right.log()
    return WeightedSum((weight * loss).sum(), weight.sum().detach())
