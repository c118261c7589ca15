"""Inverted residual blocks (MobileNetV2, section 3), used by both light backbones.

Shapes: B batch, C channels, H W map (multiples of the stride). Padding is TensorFlow's SAME, which for a stride of 2 on
even sides pads one pixel more at the bottom right: symmetric padding would shift every feature.
"""

from __future__ import annotations

import copy
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from tfcseg.model.ops.fused import convolve
from tfcseg.model.ops.strips import Rows, in_strips, strip_count, strips


class ConvNorm(nn.Module):
    """Convolution with SAME padding and batch norm; ``fold`` merges the two exactly for inference."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        activation: str = "relu6",
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.activation = activation
        total = dilation * (kernel - 1) + 1 - stride
        before = total // 2
        self.before, self.after = before, total - before
        """Rows and columns of padding; depends only on the stride if sides are multiples of it."""
        self._uneven = (before, total - before, before, total - before) if total % 2 else None
        padding = 0 if self._uneven else before
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=not norm)
        # EfficientNet's numbers
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01) if norm else nn.Identity()
        self.is_folded = False
        self.widened: nn.Conv2d | None = None
        """Folded, with uneven padding: the same filter with a column of zeros in front, for `activated_strip`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H / stride, W / stride)."""
        if self._uneven:
            x = F.pad(x, self._uneven)
        normalised: Tensor = self.norm(convolve(x, self.conv))
        return normalised

    def activated(self, x: Tensor) -> Tensor:
        """The same, with the activation."""
        if not isinstance(self.norm, nn.Identity):
            return activate(self(x), self.activation)
        return convolve(F.pad(x, self._uneven) if self._uneven else x, self.conv, self.activation)

    def activated_strip(self, x: Tensor, rows: Rows) -> Tensor:
        """`activated` for the ``rows`` of a strip; ``x`` includes their neighbours."""
        if not self.is_folded:
            x = F.pad(x, (self.before, self.after, *rows.padding))
            return activate(self.norm(convolve(x, self.conv, padding=(0, 0))), self.activation)
        # copying the widest map costs as much as its filter, which pads columns itself
        if any(rows.padding):
            x = F.pad(x, (0, 0, *rows.padding))
        return convolve(x, self.widened or self.conv, self.activation, (0, self.after))

    def fold(self) -> None:
        """Merge the norm's running statistics into the convolution, and prepare it for strips (inference only)."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()
        if self.widened is None and self._uneven and self.conv.groups > 1:
            self.widened = _with_a_first_column(self.conv)
        self.is_folded = True


def fold_layers(backbone: nn.Module) -> None:
    """Fold every `ConvNorm` in ``backbone`` (inference only, exact up to rounding)."""
    for module in backbone.modules():
        if isinstance(module, ConvNorm):
            module.fold()


def _with_a_first_column(conv: nn.Conv2d) -> nn.Conv2d:
    """Rewrite ``conv``, which pads one column more on the right, with a column of zeros before its filter.

    Equal padding on both sides is then bit-exact: sums begin with a product of zero, and the last padded column lies
    beyond the last step of an even width.
    """
    widened = copy.deepcopy(conv)
    widened.kernel_size = (conv.kernel_size[0], conv.kernel_size[1] + 1)
    widened.weight = nn.Parameter(F.pad(conv.weight.detach(), (1, 0)))
    return widened


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise k×k, project 1×1, with activations between; a shortcut where the shape stays the same."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        activation: str = "relu6",
        norm: bool = True,
    ) -> None:
        super().__init__()
        layer = partial(ConvNorm, activation=activation, norm=norm)
        self.expand = layer(in_channels, width, 1) if width > in_channels else None
        self.depthwise = layer(width, width, kernel, stride=stride, groups=width, dilation=dilation)
        self.project = layer(width, out_channels, 1)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H / stride, W / stride)."""
        depthwise = self.depthwise
        stride = depthwise.conv.stride[0]
        kernel = depthwise.conv.dilation[0] * (depthwise.conv.kernel_size[0] - 1) + 1
        count = strip_count(x, depthwise.conv.in_channels, x.shape[-2] // (stride * kernel))
        if count > 1:
            rows = strips(x.shape[-2], count, kernel=kernel, stride=stride, before=depthwise.before)
            y = in_strips(x, rows, self._strip)
        else:
            y = self.project(depthwise.activated(self._expanded(x)))
        return x + y if self.has_shortcut else y

    def _strip(self, x: Tensor, rows: Rows) -> Tensor:
        projected: Tensor = self.project(self.depthwise.activated_strip(self._expanded(x), rows))
        return projected

    def _expanded(self, x: Tensor) -> Tensor:
        return x if self.expand is None else self.expand.activated(x)


def activate(x: Tensor, activation: str) -> Tensor:
    """``relu`` or ``relu6`` of ``x``, which is overwritten."""
    return F.relu6(x, inplace=True) if activation == "relu6" else F.relu(x, inplace=True)
