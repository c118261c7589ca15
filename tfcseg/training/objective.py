"""Losses of a batch: the image network's (step 1), and eq. 12 over clips of one interval (step 2); validation.

Shapes: B clips, T frames (the first is the keyframe), K classes, S crop side, s = S / 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tfcseg.errors import DataError
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.metrics.scores import ConfusionMatrix, mean_iou
from tfcseg.model.alignment import move
from tfcseg.model.correlation import interpolation_weight
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import TFCSegmenter
from tfcseg.training.attention import distillation
from tfcseg.training.datasets import Sample
from tfcseg.training.losses import (
    WeightedSum,
    hard_cross_entropy,
    similarity_loss,
    soft_cross_entropy,
    steadiness_loss,
)
from tfcseg.weights.model_card import Preprocessing

Losses = dict[str, WeightedSum]


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


def image_losses(network: TFCSegmenter, images: Tensor, labels: Tensor, correlation: str, motion: Tensor) -> Losses:
    """Step 1: losses of the image network on every frame of images (B, T, 3, S, S).

    Pairs (T = 2) also have `steadiness_loss`.
    """
    logits = network.image(images.flatten(0, 1))
    losses = {"seg": segmentation_loss(logits, labels.flatten(0, 1))}
    if images.shape[1] == 2:
        losses["steady"] = steadiness_loss(logits.view(*images.shape[:2], *logits.shape[1:]), motion)
    return losses


def clip_losses(network: TFCSegmenter, images: Tensor, labels: Tensor, correlation: str, motion: Tensor) -> Losses:
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


def attention_losses(network: TFCSegmenter, images: Tensor, labels: Tensor, correlation: str, motion: Tensor) -> Losses:
    """Stage ``attention``: divergence of the sparse attention from the network's labels of each frame by itself."""
    return {"repair": distillation(network, images, correlation)}


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
