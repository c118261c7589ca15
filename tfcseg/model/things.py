"""A second network for things (ours, not the paper's).

The image network has seen few animals, vehicles and pieces of furniture. DeepLabv3 with MobileNetV2, trained on many,
sees keyframes at half the size. How much it prefers a thing t to the background and to the thing's rivals r is added to
the logit of its class c:

    lead_t = max(−doubt_t, weight_t · (u_t − max(u_background, u_r, …)))
    y'_c = y_c + share · resize(lead_t)

Things that the image network has learned from this one alone and often sees where there are none (animals, vehicles)
are doubted: doubt and weight are `DOUBT` and `WEIGHT`, for others 0 and 1. The map is coarse. Rivals, people and cars,
which the image network finds and draws better, therefore gain nothing. But they lose what the best thing gains, or the
legs of a dog would be people:

    y'_r = y_r − share · resize(max(0, lead_t, …))

Weights come from a published TensorFlow Lite file (tfcseg/training/teachers.py), where norms are merged into the
convolutions.

Shapes: B images, C channels, R rivals, T things, K classes, h w positions, one at every 16th pixel.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfcseg.model.ops.fused import convolve


class Stage(NamedTuple):
    """Inverted residuals of MobileNetV2 (Sandler et al., table 2), at stride 16 as in DeepLab: the last are dilated."""

    expansion: int
    channels: int
    blocks: int
    stride: int = 1
    dilation: int = 1


STEM_CHANNELS = 32
STAGES = (
    Stage(1, 16, 1),
    Stage(6, 24, 2, stride=2),
    Stage(6, 32, 3, stride=2),
    Stage(6, 64, 4, stride=2),
    Stage(6, 96, 3),
    Stage(6, 160, 1),
    Stage(6, 160, 2, dilation=2),
    Stage(6, 320, 1, dilation=2),
)
HEAD_CHANNELS = 256

DOUBT, WEIGHT = 3.0, 1.5  # what a doubted thing's logit loses at most, and the weight of its lead


class Things(nn.Module):
    """The second network, with outputs for the background, ``rivals`` and ``things``; it doubts things whose numbers
    are given."""

    def __init__(self, things: int, doubted: Collection[int] = (), rivals: int = 0) -> None:
        super().__init__()
        self._least = [-DOUBT if number in doubted else 0.0 for number in range(things)]
        self._weights = [WEIGHT if number in doubted else 1.0 for number in range(things)]
        self._rivals = rivals
        self.stem = _conv(3, STEM_CHANNELS, 3, stride=2)
        blocks, channels = [], STEM_CHANNELS
        for stage in STAGES:
            for number in range(stage.blocks):
                blocks.append(_Block(channels, stage, stage.stride if number == 0 else 1))
                channels = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.here, self.picture = _conv(channels, HEAD_CHANNELS), _conv(channels, HEAD_CHANNELS)
        self.joined = _conv(2 * HEAD_CHANNELS, HEAD_CHANNELS)
        self.classifier = _conv(HEAD_CHANNELS, 1 + rivals + things)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised to about −1…1, sides multiples of 16 → (B, R + T, h, w): what rivals lose, at
        most 0, and leads of things, from minus the doubt on."""
        # As in training, sides are 16 n + 1, so that there are positions at the first and at the last pixel.
        x = convolve(F.pad(images, (0, 1, 0, 1), mode="replicate"), self.stem, "relu6")
        for block in self.blocks:
            x = block(x)
        picture = convolve(x.mean(dim=(2, 3), keepdim=True), self.picture, "relu6")
        here = convolve(x, self.here, "relu6")
        joined = torch.cat([picture.expand_as(here), here], dim=1).contiguous(memory_format=torch.channels_last)
        joined = convolve(joined, self.joined, "relu6")
        others, things = convolve(joined, self.classifier).tensor_split([1 + self._rivals], dim=1)
        least, weights = (things.new_tensor(each).view(-1, 1, 1) for each in (self._least, self._weights))
        leads = torch.maximum(weights * (things - others.amax(dim=1, keepdim=True)), least)
        losses = -leads.amax(dim=1, keepdim=True).clamp_min(0)
        return torch.cat([losses.expand(-1, self._rivals, -1, -1), leads], dim=1)


class _Block(nn.Module):
    """Expand 1×1, depthwise 3×3, project 1×1; a shortcut where the shape stays the same."""

    def __init__(self, in_channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        width = stage.expansion * in_channels
        self.expand = _conv(in_channels, width) if stage.expansion > 1 else None
        self.depthwise = _conv(width, width, 3, stride=stride, dilation=stage.dilation, groups=width)
        self.project = _conv(width, stage.channels)
        self._has_shortcut = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C', h / stride, w / stride), rounded up."""
        y = x if self.expand is None else convolve(x, self.expand, "relu6")
        y = convolve(convolve(y, self.depthwise, "relu6"), self.project)
        return x + y if self._has_shortcut else y


def _conv(
    in_channels: int, channels: int, kernel: int = 1, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation=dilation, groups=groups)


def as_logits(leads: Tensor, classes: Sequence[int], shape: torch.Size) -> Tensor:
    """What ``leads`` (B, R + T, h, w), each of one of the ``classes``, add to logits of ``shape`` (B, K, H, W)."""
    total = leads.new_zeros(shape[0], shape[1], *leads.shape[2:])
    total = total.index_add(1, torch.tensor(classes, device=leads.device), leads)
    total = total.contiguous(memory_format=torch.channels_last)
    return F.interpolate(total, (shape[2], shape[3]), mode="bilinear", align_corners=True)
