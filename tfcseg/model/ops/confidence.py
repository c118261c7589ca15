"""Confidence of labels, without logits at full size.

Shapes: B frames, K classes, h w grid of the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor


def confidence_from_logits(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Largest probability of ``logits`` (B, K, h, w), each divided by ``temperature``: (B, h, w) uint8, 255 is 1.

    With a temperature fitted on held-out data (Guo et al., ICML 2017), it should be the share of labels that are right.
    """
    vectors = logits.detach().permute(0, 2, 3, 1).to(torch.promote_types(logits.dtype, torch.float32))
    behind = vectors - vectors.amax(-1, keepdim=True)
    greatest = behind.mul_(1 / temperature).exp_().sum(-1).reciprocal_()
    return greatest.mul_(255).round_().to(torch.uint8)
