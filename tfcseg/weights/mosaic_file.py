"""MOSAIC's published weights: a quantised TensorFlow Lite file ↔ our float backbone.

Every weight is 8-bit with one scale and zero point per tensor, every bias 32-bit; norms are merged into them already.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tfcseg.errors import DataError, UsageError
from tfcseg.model.backbones.mosaic import Mosaic

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_LAYER = re.compile(r"([^;]*)/weights_quant/")


class FloatLayer(NamedTuple):
    """A convolution of the file in float32."""

    weight: Tensor
    """(C_out, C_in / groups, k, k)."""
    bias: Tensor
    """(C_out,)."""
    limits: tuple[float, float]
    """Range of values that its quantised output can take."""


def read_layers(path: str | Path) -> dict[str, FloatLayer]:
    """Convolutions of a TensorFlow Lite file by their names in it, in the order in which they are computed.

    UsageError if the interpreter is not installed, DataError if the file is no quantised network.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise UsageError("TensorFlow Lite files need the package ai-edge-litert: pip install ai-edge-litert") from None
    try:
        # Without its delegate the interpreter lists the network's own operations.
        network = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
        network.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path} is not a TensorFlow Lite network: {str(error).splitlines()[0]}") from None
    tensors = {int(tensor["index"]): tensor for tensor in network.get_tensor_details()}
    layers: dict[str, FloatLayer] = {}
    for operation in network._get_ops_details():
        if operation["op_name"] not in _CONVOLUTIONS:
            continue
        weight, bias = (tensors[int(index)] for index in operation["inputs"][1:3])
        found = _LAYER.search(weight["name"])
        if found is None or weight["dtype"] is not np.uint8:
            raise DataError(f"{path}: {weight['name']!r} is no quantised weight of MOSAIC")
        # Convolutions lie as (C_out, k, k, C_in), depthwise ones as (1, k, k, C).
        order = (0, 3, 1, 2) if operation["op_name"] == "CONV_2D" else (3, 0, 1, 2)
        scale, zero_point = tensors[int(operation["outputs"][0])]["quantization"]
        layers[found[1]] = FloatLayer(
            _as_float(network.get_tensor(weight["index"]), weight["quantization"]).permute(order).contiguous(),
            _as_float(network.get_tensor(bias["index"]), bias["quantization"]),
            (-zero_point * scale, (255 - zero_point) * scale),
        )
    return layers


def load_mosaic_weights(backbone: Mosaic, path: str | Path) -> None:
    """Copy the encoder and context pyramid of a published MOSAIC file into ``backbone``; DataError if they differ."""
    layers = read_layers(path)
    state = backbone.state_dict()
    for name in [name.removesuffix(".weight") for name in state if name.endswith(".weight")]:
        layer = layers.get(layer_name(name))
        if layer is None or layer.weight.shape != state[f"{name}.weight"].shape:
            raise DataError(f"{path} has no {layer_name(name)} of MOSAIC's shape")
        state[f"{name}.weight"], state[f"{name}.bias"] = layer.weight, layer.bias
    backbone.load_state_dict(state)


def layer_name(name: str) -> str:
    """What the file calls a convolution of the backbone, such as ``blocks.3.expand.conv``."""
    parts = name.split(".")
    if parts[0] == "blocks":
        number = int(parts[1])
        return f"MobilenetV3/expanded_conv{f'_{number}' if number else ''}/{parts[2]}"
    if parts[0] == "context":
        pyramid = "spatial_pyramid_pooling_multikernel_conv"
        if parts[1] == "project":
            return f"{pyramid}/concat_projection"
        pool, kernel, part = int(parts[2]), int(parts[3]), parts[4]
        return f"{pyramid}/{pyramid}{pool + 1}multikernel_split{kernel}_{part}"
    return {"stem": "MobilenetV3/Conv", "last": "MobilenetV3/Conv_1"}[parts[0]]


def _as_float(values: np.ndarray, quantization: tuple[float, int]) -> Tensor:
    scale, zero_point = quantization
    return torch.from_numpy(((values.astype(np.float64) - zero_point) * scale).astype(np.float32))
