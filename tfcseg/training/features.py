"""Feature distillation: besides labels, a backbone learns the features of another one.

As in FitNets (Romero et al., ICLR 2015), a linear map takes the student's features to the teacher's; it is dropped
after training. Shapes: B images, C_l channels and h_l w_l positions of level l.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tfcseg.model.config import NUM_LEVELS
from tfcseg.model.decode_head import resize
from tfcseg.training.losses import WeightedSum
from tfcseg.weights.loading import LoadedModel, Preprocessing

LEVELS = tuple(range(1, NUM_LEVELS))
"""Strides 8, 16 and 32; edges and colours at stride 4 are learned quickly from labels."""


class FeatureDistillation(nn.Module):
    """A frozen teacher, and the linear maps (``maps``) that predict its features from the student's."""

    def __init__(self, teacher: LoadedModel, channels: Sequence[int], preprocessing: Preprocessing) -> None:
        super().__init__()
        self.backbone = teacher.network.backbone.eval().requires_grad_(False)
        self.maps = nn.ModuleList(nn.Conv2d(channels[level], self.backbone.channels[level], 1) for level in LEVELS)
        theirs = teacher.card.preprocessing
        scale = torch.tensor(preprocessing.std) / torch.tensor(theirs.std)
        offset = (torch.tensor(preprocessing.mean) - torch.tensor(theirs.mean)) / torch.tensor(theirs.std)
        self.scale: Tensor
        self.offset: Tensor
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("offset", offset.view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, levels: Sequence[Tensor]) -> WeightedSum:
        """Mean squared error of the student's ``levels`` ((B, C_l, h_l, w_l), four) against the teacher's.

        ``images`` (B, 3, H, W) are normalised for the student. The teacher's channels are standardised over the batch,
        so that none outweighs the others.
        """
        with torch.no_grad():
            low = self.backbone.encode_low(images * self.scale + self.offset)
            targets = [*low, *self.backbone.encode_high(low[1])]
        total = images.new_zeros(())
        for linear, level in zip(self.maps, LEVELS, strict=True):
            target = targets[level].float()
            deviation, mean = torch.std_mean(target, dim=(0, 2, 3), keepdim=True)
            predicted = resize(cast(Tensor, linear(levels[level])).float(), (target.shape[-2], target.shape[-1]))
            error = (predicted - (target - mean) / (deviation + 1e-3)).square()
            total = total + error.mean(dim=(1, 2, 3)).sum() / len(LEVELS)
        return WeightedSum(total, torch.tensor(float(images.shape[0]), device=images.device))

    def train(self, mode: bool = True) -> FeatureDistillation:
        """Set the mode, except the teacher's, which stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self
