"""Read MOSAIC's published weights, a quantised TensorFlow Lite file, into our backbone.

Weights are 8-bit with one scale and zero point per tensor, biases 32-bit; norms are already folded in.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tfcseg.errors import DataError, UsageError
from tfcseg.model.backbones.mosaic import Mosaic

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_LAYER = re.compile(r"([^;]*)/weights_quant/")


class FloatLayer(NamedTuple):
    """A convolution in float32."""

    weight: Tensor  # (C_out, C_in / groups, k, k)
    bias: Tensor  # (C_out,)
    limits: tuple[float, float]  # range of its quantised output


def open_interpreter(path: str | Path, *, has_delegates: bool = True, **settings: Any) -> Any:
    """Open a TensorFlow Lite file with ``settings`` of its interpreter.

    Without its default delegates it is slower, but lists the network's operations. Raises UsageError if the interpreter
    is not installed, DataError if the file is not a network.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise UsageError("TensorFlow Lite files need ai-edge-litert; run: pip install ai-edge-litert") from None
    if not has_delegates:
        settings["experimental_op_resolver_type"] = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        network = Interpreter(str(path), **settings)
        network.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path} is not a TensorFlow Lite network: {str(error).splitlines()[0]}") from None
    return network


def read_layers(path: str | Path) -> dict[str, FloatLayer]:
    """Read the convolutions of a TensorFlow Lite file by name, in the order of computation. Errors are those of
    `open_interpreter`, and DataError if the network is not quantised."""
    network = open_interpreter(path, has_delegates=False)
    tensors = {int(tensor["index"]): tensor for tensor in network.get_tensor_details()}
    layers: dict[str, FloatLayer] = {}
    for operation in network._get_ops_details():
        if operation["op_name"] not in _CONVOLUTIONS:
            continue
        weight, bias = (tensors[int(index)] for index in operation["inputs"][1:3])
        found = _LAYER.search(weight["name"])
        if found is None or weight["dtype"] is not np.uint8:
            raise DataError(f"{path}: {weight['name']!r} is not a quantised weight of MOSAIC")
        # Convolutions are (C_out, k, k, C_in), depthwise ones (1, k, k, C).
        order = (0, 3, 1, 2) if operation["op_name"] == "CONV_2D" else (3, 0, 1, 2)
        scale, zero_point = tensors[int(operation["outputs"][0])]["quantization"]
        layers[found[1]] = FloatLayer(
            _as_float(network.get_tensor(weight["index"]), weight["quantization"]).permute(order).contiguous(),
            _as_float(network.get_tensor(bias["index"]), bias["quantization"]),
            (-zero_point * scale, (255 - zero_point) * scale),
        )
    return layers


def load_mosaic_weights(backbone: Mosaic, path: str | Path) -> None:
    """Copy encoder and context pyramid of a published MOSAIC file into ``backbone``; DataError if shapes differ."""
    layers = read_layers(path)
    state = backbone.state_dict()
    for name in [name.removesuffix(".weight") for name in state if name.endswith(".weight")]:
        layer = layers.get(layer_name(name))
        if layer is None or layer.weight.shape != state[f"{name}.weight"].shape:
            raise DataError(f"{path} has no {layer_name(name)} of MOSAIC's shape")
        state[f"{name}.weight"], state[f"{name}.bias"] = layer.weight, layer.bias
    backbone.load_state_dict(state)


def layer_name(name: str) -> str:
    """Name in the file of a convolution of our backbone, such as ``blocks.3.expand.conv``."""
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
