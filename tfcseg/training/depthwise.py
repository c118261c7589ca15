"""Depthwise convolutions with a float32 backward pass, for training in bfloat16 on a CPU.

There the gradients of strided, dilated and 5×5 depthwise convolutions take three to five times as long in bfloat16 as
in float32: more than half of a training step of both light backbones. The forward pass keeps its type. Nothing changes
on other devices or in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Pair = tuple[int, int]


class _DepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, steps: tuple[Pair, Pair, Pair]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = (steps, bias is not None)
        low_bias = None if bias is None else bias.to(x.dtype)
        return nn.functional.conv2d(x, weight.to(x.dtype), low_bias, *steps, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (stride, padding, dilation), has_bias = ctx.geometry
        groups = weight.shape[0]
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad.float(),
            x.float(),
            weight,
            [groups] if has_bias else None,
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            groups,
            (True, True, has_bias),
        )
        # Earlier layers are far slower if gradients and activations differ in memory format.
        return grad_x.to(x.dtype, memory_format=torch.channels_last), grad_weight, grad_bias, None


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise `nn.Conv2d` with a float32 backward pass; same parameters and names."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H', W')."""
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        low = input.to(torch.get_autocast_dtype("cpu"))
        result: Tensor = _DepthwiseFunction.apply(  # type: ignore[no-untyped-call]
            low, self.weight, self.bias, (self.stride, self.padding, self.dilation)
        )
        return result


def use_float32_backward(network: nn.Module) -> None:
    """Make depthwise convolutions that are slow in bfloat16 `DepthwiseConv2d`, in place."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels == module.out_channels > 1:
            is_plain = module.kernel_size == (3, 3) and module.stride == module.dilation == (1, 1)
            if not is_plain:
                module.__class__ = DepthwiseConv2d
