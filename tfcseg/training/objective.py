"""Losses of a batch: the image network's (step 1), eq. 12 over clips of one interval (step 2), the sparse attention's.

Shapes: B clips, T frames (the first is the keyframe), K classes, S crop side, s = S / 4, h w label grid. A loss is a
(sum, weight) pair, so that several processes can compute the mean over their joint batch, not a mean of means.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from tfcseg.errors import DataError
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.metrics.scores import ConfusionMatrix, mean_iou
from tfcseg.model.alignment import move
from tfcseg.model.correlation import Points, interpolation_weight, similarity
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import TFCSegmenter
from tfcseg.training.datasets import Sample
from tfcseg.weights.model_card import Preprocessing

FOCAL_GAMMA = 1.0
"""L_bce is a focal loss with γ = 1, since changes are rare (paper, Training)."""


class WeightedSum(NamedTuple):
    """Numerator Σ w·l and denominator Σ w of a mean loss."""

    total: Tensor
    weight: Tensor


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


Losses = dict[str, WeightedSum]

POINTS = 256
"""Points per frame, on average: neighbours teach the same, so few points of many frames are better."""

LEAST_SIMILAR = 0.9
"""Points below this similarity are drawn: more than at eq. 11's 0.8, so that other thresholds work too."""

WRONG = 1.5
"""How much more often points are drawn where interpolation alone has another label than the network; they are rare."""


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 RGB (…, 3, H, W) → float32, the network's input."""
    mean = torch.tensor(preprocessing.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=images.device).view(3, 1, 1)
    return (images.float() - mean) / std


def segmentation_loss(logits: Tensor, labels: Tensor) -> WeightedSum:
    """L_seg for soft labels (B, K, s, s) or hard ones (B, S, S)."""
    if labels.dim() == 4:
        return soft_cross_entropy(logits, labels)
    return hard_cross_entropy(logits, labels.long())


def image_losses(network: TFCSegmenter, images: Tensor, labels: Tensor, correlation: str) -> Losses:
    """Step 1: L_seg of the image network on every frame of images (B, T, 3, S, S)."""
    return {"seg": segmentation_loss(network.image(images.flatten(0, 1)), labels.flatten(0, 1))}


def clip_losses(network: TFCSegmenter, images: Tensor, labels: Tensor, correlation: str) -> Losses:
    """Step 2, eq. 12: L_seg over the keyframe and its non-keyframes, L_bce over the similarities.

    The paper does not say how it averages L_seg over frames; here every labelled pixel has the same weight.
    """
    keyframe_logits, memory = network.keyframe(images[:, 0])
    result = network.non_keyframes(images[:, 1:].flatten(0, 1), memory, InferenceOptions(correlation=correlation))
    key = segmentation_loss(keyframe_logits, labels[:, 0])
    rest = segmentation_loss(result.logits, labels[:, 1:].flatten(0, 1))
    size = (result.similarity.shape[-2], result.similarity.shape[-1])
    classes, known = grid_classes(labels, size)
    frames = result.similarity.shape[0]
    # Aligned correlation: take the keyframe's label at the matched position.
    rows = None if result.shift is None else result.shift.rows
    before, before_known = (move(x[:, :1], rows, frames)[:, 0] for x in (classes, known))
    unchanged = (classes[:, 1:].flatten(0, 1) == before).float()
    weight = known[:, 1:].flatten(0, 1) * before_known
    return {
        "seg": WeightedSum(key.total + rest.total, key.weight + rest.weight),
        "bce": similarity_loss(interpolation_weight(result.similarity), unchanged, weight),
    }


def attention_losses(network: TFCSegmenter, images: Tensor, labels: Tensor, correlation: str) -> Losses:
    """Stage ``attention``: divergence of the sparse attention from the network's own labels of each frame by itself.

    Nothing else is trained, so the network runs without gradients, and mode ``image`` stays as it is. Labels are not
    needed. The loss is taken at points drawn in images (B, T, 3, H, W).
    """
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
    return {"repair": divergence(network.updated(found, memory, w_hat, points), target)}


def draw_points(w: Tensor, is_wrong: Tensor) -> Points:
    """Draw at most POINTS points per frame, on average, with similarities w (S, h, w) below LEAST_SIMILAR."""
    weight = (w < LEAST_SIMILAR).float() * (1 + WRONG * is_wrong)
    chosen = weight.flatten().nonzero()[:, 0]
    most = POINTS * len(w)
    if len(chosen) > most:
        chosen = torch.multinomial(weight.flatten(), most)
    height, width = w.shape[1:]
    return Points(chosen // (height * width), chosen // width % height, chosen % width)


def grid_classes(labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Class (B, T, h, w) and its confidence (0…1) at the network's grid, of soft or hard labels."""
    if labels.dim() == 5:
        best = labels.max(dim=2)
        return best.indices, best.values.float() / 255.0
    # Take the centre of each cell, since class indices cannot be averaged.
    stride = labels.shape[-1] // size[1]
    classes = labels[..., stride // 2 :: stride, stride // 2 :: stride]
    return classes, (classes != NO_CLASS).float()


def validation_miou(predict: Callable[[Sample], Tensor], samples: Dataset[Sample], num_classes: int) -> float:
    """Mean IoU (0–1) at the label grid over all frames of ``samples``, by which the best weights are chosen.

    Of soft labels the most probable class counts. ``predict`` returns the logits (T, K, s, s) of a sample.
    """
    matrix = ConfusionMatrix(num_classes)
    for number in range(len(samples)):  # type: ignore[arg-type]
        sample = samples[number]
        logits = predict(sample)
        size = (logits.shape[-2], logits.shape[-1])
        classes, known = grid_classes(sample.labels[None], size)
        target = torch.where(known > 0, classes, NO_CLASS)[0].numpy().astype(np.uint8)
        for truth, prediction in zip(target, logits.argmax(1).cpu().numpy().astype(np.uint8), strict=True):
            matrix.update(truth, prediction)
    score = mean_iou(matrix.counts)
    if math.isnan(score):
        raise DataError("the validation samples have no labelled pixel")
    return score
