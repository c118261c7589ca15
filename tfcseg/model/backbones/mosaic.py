"""MOSAIC's encoder as a four-level backbone (Wang and Howard, "MOSAIC: Mobile Segmentation via decoding Aggregated
Information and encoded Context", 2021): a MobileNet without norms and with dilated last blocks, and a pyramid of
pooled context.

Weights come from the published TensorFlow Lite file (tfcseg/training/teachers.py), where every norm is merged into
its convolution. The all-MLP head replaces the published decoder.

Shapes: B batch, C channels, H W image (multiples of 32), h w = H/16, W/16.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfcseg.model.backbones.inverted_residual import ConvNorm, InvertedResidual


class BlockNumbers(NamedTuple):
    """One inverted residual of the table."""

    width: int
    channels: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1


STEM_CHANNELS = 32

BLOCKS = (
    BlockNumbers(96, 32, stride=2),
    BlockNumbers(64, 32),  # level 1
    BlockNumbers(160, 64, kernel=5, stride=2),
    BlockNumbers(192, 64),
    BlockNumbers(128, 64),
    BlockNumbers(192, 64),  # level 2
    BlockNumbers(384, 128, kernel=5, stride=2),
    BlockNumbers(384, 128),
    BlockNumbers(384, 128),
    BlockNumbers(384, 128),
    BlockNumbers(768, 160),
    BlockNumbers(640, 160),  # level 3
    BlockNumbers(960, 192),
    BlockNumbers(384, 96, kernel=5, dilation=2),
    BlockNumbers(384, 96, kernel=5, dilation=2),
    BlockNumbers(384, 96, kernel=5, dilation=2),
)

LEVEL_ENDS = (2, 6, 12)
"""Levels 1 to 3 are taken after this many blocks: strides 4, 8, 16. Level 4 follows the last, also at stride 16."""

LAST_CHANNELS = 448

POOLS = (8, 4, 2)  # sides of the pyramid's windows in positions at stride 16, coarsest first
POOL_KERNELS = (3, 5)  # a window's channels are split in two; each half has its own kernel size

POOL_CHANNELS, CONTEXT_CHANNELS = 64, 128

_conv = partial(ConvNorm, activation="relu", norm=False)


class ContextPyramid(nn.Module):
    """Context: averages over windows of three sizes, filtered, enlarged and concatenated with the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // len(POOL_KERNELS)
        self.filters = nn.ModuleList(
            nn.ModuleList(_Separable(half, POOL_CHANNELS, kernel) for kernel in POOL_KERNELS) for _ in POOLS
        )
        joined = channels + len(POOLS) * len(POOL_KERNELS) * POOL_CHANNELS
        self.project = _conv(joined, CONTEXT_CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, 128, h, w)."""
        h, w = x.shape[-2:]
        parts = []
        for pool, filters in zip(POOLS, self.filters, strict=True):
            # Windows keep their size in pixels for any picture size; the last ones may be cut off at its edge.
            means = F.avg_pool2d(x, pool, ceil_mode=True, count_include_pad=False)
            halves = zip(cast(nn.ModuleList, filters), means.chunk(len(POOL_KERNELS), dim=1), strict=True)
            joined = torch.cat([chain(half) for chain, half in halves], dim=1)
            enlarged = F.interpolate(joined, scale_factor=float(pool), mode="bilinear", align_corners=False)
            parts.append(enlarged[..., :h, :w])
        context: Tensor = self.project.activated(torch.cat([*parts, x], dim=1))
        return context


class Mosaic(nn.Module):
    """MOSAIC's encoder, cut at stride 8 into a low and a high half."""

    channels = (32, 64, 160, LAST_CHANNELS + CONTEXT_CHANNELS)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, STEM_CHANNELS, 3, stride=2)
        blocks: list[InvertedResidual] = []
        channels = STEM_CHANNELS
        for width, out_channels, kernel, stride, dilation in BLOCKS:
            shape = (channels, width, out_channels, kernel)
            blocks.append(InvertedResidual(*shape, stride=stride, dilation=dilation, activation="relu", norm=False))
            channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.last = _conv(channels, LAST_CHANNELS, 1)
        self.context = ContextPyramid(LAST_CHANNELS)

    def encode_low(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised image → x1 (B, 32, H/4, W/4), x2 (B, 64, H/8, W/8)."""
        x1 = self.blocks[: LEVEL_ENDS[0]](self.stem.activated(image))
        return x1, self.blocks[LEVEL_ENDS[0] : LEVEL_ENDS[1]](x1)

    def encode_high(self, x2: Tensor) -> tuple[Tensor, Tensor]:
        """x2 → x3 (B, 160, h, w), x4 (B, 576, h, w): the last map with the context around it."""
        x3 = self.blocks[LEVEL_ENDS[1] : LEVEL_ENDS[2]](x2)
        last = self.last.activated(self.blocks[LEVEL_ENDS[2] :](x3))
        return x3, torch.cat([last, self.context(last)], dim=1)


class _Separable(nn.Module):
    """Depthwise k×k, then 1×1, a ReLU after each."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = _conv(in_channels, in_channels, kernel, groups=in_channels)
        self.pointwise = _conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) → (B, C_out, h, w)."""
        return self.pointwise.activated(self.depthwise.activated(x))
