"""MOSAIC as published, decoder included, written layer by layer from the TensorFlow Lite file's own weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tfcseg.model.backbones.mosaic import BLOCKS
from tfcseg.training.teachers import FloatLayer

PYRAMID = "spatial_pyramid_pooling_multikernel_conv"
Features = dict[str, Tensor]


class MosaicReference:
    """Float arithmetic on dequantised weights, every value kept within the range that the file's 8 bits can tell."""

    def __init__(self, layers: dict[str, FloatLayer], *, clamps: bool = True) -> None:
        self.layers, self.clamps = layers, clamps

    def conv(self, x: Tensor, name: str, *, stride: int = 1, dilation: int = 1, relu: bool = True) -> Tensor:
        layer = self.layers[name]
        groups = x.shape[1] // layer.weight.shape[1]
        total = dilation * (layer.weight.shape[-1] - 1) + 1 - stride
        before, after = total // 2, total - total // 2
        y = F.conv2d(F.pad(x, (before, after, before, after)), layer.weight, layer.bias, stride, 0, dilation, groups)
        y = F.relu(y) if relu else y
        return y.clamp(*layer.limits) if self.clamps else y

    def features(self, image: Tensor) -> Features:
        x = self.conv(image, "MobilenetV3/Conv", stride=2)
        found: Features = {}
        for number, block in enumerate(BLOCKS):
            name = f"MobilenetV3/expanded_conv{f'_{number}' if number else ''}"
            y = self.conv(x, f"{name}/expand")
            y = self.conv(y, f"{name}/depthwise", stride=block.stride, dilation=block.dilation)
            found[f"depthwise {number}"] = y
            y = self.conv(y, f"{name}/project", relu=False)
            x = x + y if y.shape == x.shape else y
            found[f"block {number}"] = x
        found["last"] = last = self.conv(x, "MobilenetV3/Conv_1")
        parts = []
        for number, side in enumerate((8, 4, 2), start=1):
            halves = F.avg_pool2d(last, side).chunk(2, dim=1)
            names = [f"{PYRAMID}/{PYRAMID}{number}multikernel_split{half}" for half in range(2)]
            filtered = [
                self.conv(self.conv(half, f"{name}_depthwise"), f"{name}_pointwise")
                for half, name in zip(halves, names, strict=True)
            ]
            parts.append(resize_as_tensorflow(torch.cat(filtered, dim=1), last.shape[-1]))
        found["context"] = self.conv(torch.cat([*parts, last], dim=1), f"{PYRAMID}/concat_projection")
        return found

    def labels(self, image: Tensor) -> Tensor:
        found = self.features(image)
        low, middle = found["depthwise 1"], found["depthwise 5"]
        z = torch.cat([resize_as_tensorflow(found["context"], middle.shape[-1]), middle], dim=1)
        for name in ("feature_conv_0", "separable_conv_0_depthwise", "separable_conv_0_pointwise"):
            z = self.conv(z, f"decoder/decoder_{name}")
        y = resize_as_tensorflow(z, low.shape[-1]) + self.conv(low, "decoder/decoder_feature_projected1_1")
        return resize_as_tensorflow(y, image.shape[-1]).argmax(dim=1)


def resize_as_tensorflow(x: Tensor, side: int) -> Tensor:
    """Bilinear to (side, side) with TensorFlow's first rule: source = target · in / out, corners at 0."""
    own = x.shape[-1]
    position = torch.arange(side) * own / side
    first = position.long()
    second = (first + 1).clamp(max=own - 1)
    share = position - first
    x = torch.lerp(x[..., first, :], x[..., second, :], share[:, None])
    return torch.lerp(x[..., first], x[..., second], share)
