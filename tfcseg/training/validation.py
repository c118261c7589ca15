"""The score by which the best weights are chosen."""

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
from tfcseg.training.datasets import Sample
from tfcseg.training.objective import grid_classes


def validation_miou(predict: Callable[[Sample], Tensor], samples: Dataset[Sample], num_classes: int) -> float:
    """Mean IoU (0–1) at the label grid over all frames of ``samples``; of soft labels the most probable class counts.

    ``predict`` returns the logits (T, K, s, s) of a sample.
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
