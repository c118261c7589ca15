"""SegFormer's all-MLP decode head (eqs 2 and 3), computed at each level's own resolution.

Shapes: B batch, C_l channels of level l, D embedding width, K classes, h w grid at stride 4.

SegFormer projects each level to D, resizes all to stride 4, concatenates and fuses with a 1×1 layer. Linear layers
commute with bilinear resizing, so the fuse layer's slice for a level can be applied to that level's projection *before*
the resize, and the two matrices can be multiplied first:

    fuse(concat(resize(P_l x_l))) = Σ_l resize(F_l P_l x_l)

This is exact up to rounding and turns 7.1 GMAC into 0.4 for MiT-B0 at 480×853.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfcseg.model.config import NUM_LEVELS
from tfcseg.model.ops.fused import add_and_rectify, convolve

CLASSIFIER_DROPOUT = 0.1


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize in space of (B, C, H, W) to (B, C, *size), pixel centres aligned."""
    if x.shape[-2:] == torch.Size(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def widened(x: Tensor) -> Tensor:
    """bfloat16 ``x`` in float32 on a processor, where it is fast in convolutions only; else as it is."""
    return x.float() if x.device.type == "cpu" and x.dtype == torch.bfloat16 else x


class DecodeHead(nn.Module):
    """All-MLP head over four levels. Its low-level and high-level sums are available separately."""

    def __init__(self, channels: Sequence[int], embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, embed_dim) for width in channels)
        self.fuse = nn.Conv2d(NUM_LEVELS * embed_dim, embed_dim, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(embed_dim)
        self.dropout = nn.Dropout2d(CLASSIFIER_DROPOUT)
        self.classifier = nn.Conv2d(embed_dim, num_classes, 1)
        self.folded_levels = nn.ModuleList()
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(cast(nn.Parameter, self.classifier.bias))

    def projection(self, level: int) -> tuple[Tensor, Tensor]:
        """P_l of eq. 2: weight (D, C_l) and bias (D,)."""
        linear = cast(nn.Linear, self.projections[level])
        return linear.weight, linear.bias

    def project(self, x: Tensor, level: int) -> Tensor:
        """x̂_l: (B, C_l, h_l, w_l) → (B, D, h_l, w_l), the projection of eq. 2 before its resize."""
        weight, bias = self.projection(level)
        return F.conv2d(x, weight[:, :, None, None], bias)

    def fuse_level(self, x: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """Level's share of the fused sum: (B, C_l, h_l, w_l) → (B, D, *size)."""
        if self.folded_levels:
            return resize(convolve(x, cast(nn.Conv2d, self.folded_levels[level])), size)
        weight, bias = self._level_map(level)
        return resize(F.conv2d(x, weight[:, :, None, None], bias), size)

    def fuse_high(self, x3: Tensor, x4: Tensor, size: tuple[int, int]) -> Tensor:
        """Sum of levels 3 and 4 at stride 4 (B, D, *size): what non-keyframes take from their keyframe."""
        # MOSAIC's levels 3 and 4 have the same size: their sum is resized once.
        grid = (x3.shape[-2], x3.shape[-1]) if x3.shape[-2:] == x4.shape[-2:] else size
        return resize(self.fuse_level(x3, 2, grid).add_(self.fuse_level(x4, 3, grid)), size)

    def embed(self, x1: Tensor, rest: Tensor) -> Tensor:
        """Embedding of eq. 2: z = ReLU(norm(level 1 + rest)), (B, D, h, w).

        ``rest`` is the sum of levels 2 to 4 at stride 4; it is overwritten.
        """
        if self.folded_levels:
            return add_and_rectify(x1, cast(nn.Conv2d, self.folded_levels[0]), rest)
        return F.relu(self.norm(rest.add_(self.fuse_level(x1, 0, (x1.shape[-2], x1.shape[-1])))), inplace=True)

    def classify(self, z: Tensor) -> Tensor:
        """Eq. 3 before its resize: z (B, D, h, w) → logits (B, K, h, w)."""
        return convolve(self.dropout(z), self.classifier)

    def classify_points(self, z: Tensor) -> Tensor:
        """The same for single positions: z (N, D) → logits (N, K)."""
        weight, bias = self.classifier.weight[:, :, 0, 0], cast(Tensor, self.classifier.bias)
        return F.linear(F.dropout(z, self.dropout.p, self.training), weight.to(z.dtype), bias.to(z.dtype))

    @torch.no_grad()
    def fold(self) -> None:
        """Compute the products F_l P_l and merge the norm into them (inference only, permanent)."""
        if not isinstance(self.norm, nn.BatchNorm2d):
            return
        norm = self.norm
        scale = norm.weight * torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
        shift = norm.bias - cast(Tensor, norm.running_mean) * scale
        for level in range(NUM_LEVELS):
            weight, bias = self._level_map(level)
            # The norm's shift belongs to the sum; level 1 includes it because every frame computes that level.
            bias = bias * scale + (shift if level == 0 else 0)
            self.folded_levels.append(pointwise(weight * scale[:, None], bias))
        self.norm = nn.Identity()

    def _level_map(self, level: int) -> tuple[Tensor, Tensor]:
        """F_l P_l: weight (D, C_l) and bias (D,)."""
        embed_dim = self.fuse.out_channels
        fuse = self.fuse.weight[:, level * embed_dim : (level + 1) * embed_dim, 0, 0]
        weight, bias = self.projection(level)
        return fuse @ weight, fuse @ bias


def pointwise(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """1×1 convolution with the given weight (C_out, C_in) and bias (C_out,)."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, device="meta")
    conv.weight = nn.Parameter(weight.detach()[:, :, None, None].contiguous(), requires_grad=False)
    conv.bias = nn.Parameter(bias.detach().contiguous(), requires_grad=False)
    return conv
