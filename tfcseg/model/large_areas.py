"""Large areas are decided at two sizes (ours, not the paper's).

A network that sees a picture at a high resolution finds small things, but sees large ones only in parts: a dress
becomes a bottle, a ceiling becomes a wall. At half the size it is the other way round. So the logits y of the image
keep their details, and their means over large areas come from both sizes (as in a pyramid with two bands):

    y' = y + share · resize(pool(y_half) − pool(y))                                                     (`correction`)

At ``share`` 0.5, an area's mean is that of both sizes. Frames between keyframes take the correction of their keyframe.

Shapes: B images, K classes, h w grid of the logits, hh wh of those at half the size, r s grid of the areas.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

AREAS = 4  # areas along the short side of the picture


def correction(logits: Tensor, half: Tensor, share: float) -> Tensor:
    """What logits (B, K, h, w) lack of the means over large areas (B, K, r, s); ``half`` (B, K, hh, wh)."""
    height, width = logits.shape[-2:]
    grid = round(AREAS * height / min(height, width)), round(AREAS * width / min(height, width))
    return share * (F.adaptive_avg_pool2d(half, grid) - F.adaptive_avg_pool2d(logits, grid))
