"""Convolutions and linear layers by oneDNN, fused with the activation or sum that follows, for inference on a CPU.

A map that does not fit into the cache is written by the convolution, then read and written again by its activation or
by a sum. oneDNN, which computes most of PyTorch's convolutions on x86, can do both while it holds the values; results
are the same up to rounding. On one thread PyTorch passes 1×1 convolutions of single maps and all linear layers to its
matrix library, which takes up to twice as long. On other hardware, and where gradients are recorded, PyTorch's own
operations are used.

oneDNN prepares itself for every new shape, so layers whose input size changes from frame to frame are better off
without it. It also reorders weights before every convolution unless reordered weights are kept, as they are here.

Shapes: B batch, C channels, H W map.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple, TypeAlias, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], str, list[float], str]] = {
    "none": (lambda x: x, "none", [], ""),
    "relu": (partial(F.relu, inplace=True), "relu", [], ""),
    "relu6": (partial(F.relu6, inplace=True), "hardtanh", [0.0, 6.0], ""),
    "gelu": (F.gelu, "gelu", [], "none"),
}
"""PyTorch's function, and oneDNN's words for it: name, numbers and algorithm."""

Padding: TypeAlias = tuple[int, int]

_REORDER = "mkldnn_reorder_conv2d_weight"

KEPT_ORDERS = 8  # number of map shapes for which a convolution keeps its weights in oneDNN's order


def convolve(x: Tensor, conv: nn.Conv2d, activation: str = "none", padding: Padding | None = None) -> Tensor:
    """``activation`` (relu, relu6, gelu or none) of ``conv`` of (B, C, H, W); ``padding`` replaces the convolution's
    own."""
    function, *in_onednn = _ACTIVATIONS[activation]
    if not _can_fuse(x):
        if padding is None:
            return function(conv(x))
        return function(F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups))
    around = cast(Padding, conv.padding) if padding is None else padding
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, _in_order(conv, x, around), conv.bias, around, conv.stride, conv.dilation, conv.groups, *in_onednn
    )
    return result


def apply_linear(x: Tensor, layer: nn.Linear, activation: str = "none") -> Tensor:
    """``activation`` (none, relu, relu6 or gelu) of ``layer`` of (…, C)."""
    function, *in_onednn = _ACTIVATIONS[activation]
    if not (x.is_contiguous() and is_for_onednn(x)):
        return function(layer(x))
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, *in_onednn)
    return result


def add_and_rectify(x: Tensor, conv: nn.Conv2d, rest: Tensor) -> Tensor:
    """ReLU(conv(x) + rest) of a 1×1 ``conv`` of (B, C, H, W); ``rest`` (B, C', H, W) is overwritten."""
    if not _can_fuse(x) or not rest.is_contiguous(memory_format=torch.channels_last):
        return F.relu(rest.add_(conv(x)), inplace=True)
    result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
        rest, x, _in_order(conv, x, (0, 0)), conv.bias, (0, 0), (1, 1), (1, 1), 1, "add", 1.0, "relu", [], ""
    )
    return result


class _Orders(NamedTuple):
    """Weights of a convolution in oneDNN's orders."""

    source: Tensor  # the weight itself: holding it keeps its memory from being reused by another one
    changes: int  # how often the weight had been changed
    weights: dict[tuple[torch.Size, Padding, int], Tensor]  # by shape of the map, padding and number of threads


_orders: WeakKeyDictionary[nn.Conv2d, _Orders] = WeakKeyDictionary()


def _in_order(conv: nn.Conv2d, x: Tensor, padding: Padding) -> Tensor:
    """The weight of ``conv`` as oneDNN wants it for ``x``; reused until the weight changes."""
    weight = conv.weight
    if weight.is_inference():  # its changes are not counted
        return weight
    kept = _orders.get(conv)
    if kept is None or kept.source.data_ptr() != weight.data_ptr() or kept.changes != weight._version:
        kept = _orders[conv] = _Orders(weight.detach(), weight._version, {})
    case = (x.shape, padding, torch.get_num_threads())
    ordered = kept.weights.get(case)
    if ordered is None:
        reorder = getattr(torch._C._nn, _REORDER)
        ordered = reorder(weight.to_mkldnn(), [*padding], [*conv.stride], [*conv.dilation], conv.groups, [*x.shape])
        if len(kept.weights) == KEPT_ORDERS:
            kept.weights.clear()
        kept.weights[case] = ordered
    return ordered


def _can_fuse(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and is_for_onednn(x)


def is_for_onednn(x: Tensor) -> bool:
    """Whether oneDNN computes layers of ``x`` here, given its memory format."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    # Autocast would not cast weights for these operations.
    return not torch.is_autocast_enabled("cpu") and x.dtype in _fusable_types()


@cache
def _fusable_types() -> frozenset[torch.dtype]:
    """Types that oneDNN computes here. The operations are private to PyTorch and may be missing."""
    operations = torch.ops.mkldnn
    is_there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    names = ("_convolution_pointwise_", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not (is_there and all(hasattr(operations, name) for name in names) and hasattr(torch._C._nn, _REORDER)):
        return frozenset()
    has_bfloat16 = operations._is_mkldnn_bf16_supported()
    return frozenset({torch.float32, torch.bfloat16} if has_bfloat16 else {torch.float32})
