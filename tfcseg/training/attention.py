"""Stage ``attention``: the sparse attention alone learns the network's own labels of each frame by itself.

Nothing else is trained, so the network runs once per sample and without gradients, and mode ``image`` stays as it is.
Labels are not needed. Shapes: B clips, T frames (the first is the keyframe), K classes, N points, h w grid.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tfcseg.model.correlation import Points, interpolation_weight, similarity
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import TFCSegmenter
from tfcseg.training.losses import WeightedSum

POINTS = 256
"""Points per frame, on average: neighbours teach the same, so few points of many frames are better."""

LEAST_SIMILAR = 0.9
"""Points below this similarity are drawn: more than at eq. 11's 0.8, so that other thresholds work too."""

WRONG = 1.5
"""How much more often, relative to others, points are drawn where interpolation alone has another label than the
network. They are rare."""


def distillation(network: TFCSegmenter, images: Tensor, correlation: str) -> WeightedSum:
    """Divergence of the sparse attention from the network's own labels, at points drawn in images (B, T, 3, H, W)."""
    with torch.no_grad():
        _, memory = network.keyframe(images[:, 0])
        x1, x2 = network.backbone.encode_low(images[:, 1:].flatten(0, 1))
        own = network.decode_head.classify(network.embed(x1, x2)[0])
        options = network.completed(InferenceOptions(correlation=correlation))
        found = network.between(x1, x2, memory, options)
        w = similarity(found.moved(memory.level2), found.level2)
        w_hat = interpolation_weight(w)
        interpolated = network.interpolated(found, memory, w_hat)
        points = draw_points(w[:, 0], interpolated.argmax(dim=1) != own.argmax(dim=1))
    target = own.permute(0, 2, 3, 1)[points.frame, points.y, points.x]
    return divergence(network.updated(found, memory, w_hat, points), target)


def draw_points(w: Tensor, is_wrong: Tensor) -> Points:
    """Draw at most POINTS points per frame, on average, with similarities w (S, h, w) below LEAST_SIMILAR."""
    weight = (w < LEAST_SIMILAR).float() * (1 + WRONG * is_wrong)
    chosen = weight.flatten().nonzero()[:, 0]
    most = POINTS * len(w)
    if len(chosen) > most:
        chosen = torch.multinomial(weight.flatten(), most)
    height, width = w.shape[1:]
    return Points(chosen // (height * width), chosen // width % height, chosen % width)


def divergence(logits: Tensor, target: Tensor) -> WeightedSum:
    """Kullback-Leibler divergence of the classes of ``logits`` (N, K) from those of ``target`` (N, K)."""
    total = F.kl_div(
        logits.float().log_softmax(dim=1), target.float().log_softmax(dim=1), reduction="sum", log_target=True
    )
    return WeightedSum(total, torch.tensor(float(len(logits)), device=logits.device))
