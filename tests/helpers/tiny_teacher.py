"""Real TensorFlow Lite networks for tests, written by hand."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfcseg.model.things import Things
from tfcseg.training.teachers import layer_of_things

BACKGROUND, RED, GREEN, BLUE = 0, 1, 2, 3
"""Classes of the teacher: the channel that stands out, or none."""


def write_teacher(path: Path, *, classes: int = 32, size: int = 128, bias: int = 0) -> Path:
    """Network from (1, size, size, 3) uint8 to (1, size, size) int32 over ``classes``, with its logits inside.

    Class 1, 2 or 3 wins where red, green or blue stands out by more than about 40, else class 0. ``bias`` makes
    another network of it.
    """
    weights = np.zeros((classes, 1, 1, 3), np.int32)
    weights[1:4, 0, 0] = 30 * np.eye(3, dtype=np.int32) - 15 * (1 - np.eye(3, dtype=np.int32))
    biases = np.full(classes, -3000, np.int32)
    biases[0], biases[1:4] = 1200 + bias, 0
    model = schema.ModelT()
    model.version = 3
    model.buffers = [
        schema.BufferT(),
        _buffer((weights + 128).astype(np.uint8)),
        _buffer(biases),
        _buffer(np.array([3], np.int32)),
    ]
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor("image", (1, size, size, 3), schema.TensorType.UINT8, scale=1.0),
        _tensor("weights", weights.shape, schema.TensorType.UINT8, buffer=1, scale=1.0, zero_point=128),
        _tensor("biases", (classes,), schema.TensorType.INT32, buffer=2, scale=1.0),
        _tensor("logits", (1, size, size, classes), schema.TensorType.UINT8, scale=60.0, zero_point=100),
        _tensor("axis", (1,), schema.TensorType.INT32, buffer=3),
        _tensor("labels", (1, size, size), schema.TensorType.INT32),
    ]
    convolution = schema.Conv2DOptionsT()
    convolution.strideH = convolution.strideW = 1
    argmax = schema.ArgMaxOptionsT()
    argmax.outputType = schema.TensorType.INT32
    model.operatorCodes = [_code(schema.BuiltinOperator.CONV_2D), _code(schema.BuiltinOperator.ARG_MAX)]
    graph.operators = [
        _operator(0, [0, 1, 2], [3], schema.BuiltinOptions.Conv2DOptions, convolution),
        _operator(1, [3, 4], [5], schema.BuiltinOptions.ArgMaxOptions, argmax),
    ]
    graph.inputs, graph.outputs = [0], [5]
    model.subgraphs = [graph]
    return _write(path, model)


def write_deeplab(path: Path) -> Path:
    """The convolutions of DeepLabv3 with MobileNetV2 and VOC's 21 classes, with random 8-bit weights; nothing between
    the last ones, so it computes nothing of use."""
    state = Things(20).state_dict()
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    graph.tensors = [
        _tensor("image", (1, 33, 33, 3), schema.TensorType.UINT8, scale=1.0),
        _tensor("joined", (1, 3, 3, 512), schema.TensorType.UINT8, scale=1.0),
    ]
    graph.inputs, graph.operators = [0, 1], []
    model.operatorCodes = [_code(schema.BuiltinOperator.CONV_2D), _code(schema.BuiltinOperator.DEPTHWISE_CONV_2D)]
    kinds = (schema.BuiltinOptions.Conv2DOptions, schema.BuiltinOptions.DepthwiseConv2DOptions)
    random, before, blocks = np.random.default_rng(0), 0, 0
    for name in [name.removesuffix(".weight") for name in state if name.endswith(".weight")]:
        channels, _, kernel, _ = state[f"{name}.weight"].shape
        is_depthwise = "depthwise" in name
        source = 1 if name == "joined" else blocks if name in ("here", "picture") else before
        _, side, _, read = graph.tensors[source].shape
        stride = 2 if name == "stem" or (is_depthwise and name.split(".")[1] in ("1", "3", "6")) else 1
        shape = (1, kernel, kernel, channels) if is_depthwise else (channels, kernel, kernel, read)
        model.buffers += [
            _buffer(random.integers(0, 256, shape, np.uint8)),
            _buffer(random.integers(-99, 99, channels, np.int32)),
        ]
        first, number = len(graph.tensors), len(model.buffers)
        weights = f"folded;{layer_of_things(name)}/weights_quant/FakeQuantWithMinMaxVars"
        out = -(-side // stride)
        graph.tensors += [
            _tensor(weights, shape, schema.TensorType.UINT8, buffer=number - 2, scale=0.01, zero_point=128),
            _tensor(f"{name}/bias", (channels,), schema.TensorType.INT32, buffer=number - 1, scale=0.01),
            _tensor(name, (1, out, out, channels), schema.TensorType.UINT8, scale=1.0),
        ]
        options = schema.DepthwiseConv2DOptionsT() if is_depthwise else schema.Conv2DOptionsT()
        options.strideH = options.strideW = stride
        if is_depthwise:
            options.depthMultiplier = 1
        graph.operators.append(
            _operator(int(is_depthwise), [source, first, first + 1], [first + 2], kinds[is_depthwise], options)
        )
        before = first + 2
        blocks = before if name.endswith("project") else blocks
    graph.outputs = [before]
    model.subgraphs = [graph]
    return _write(path, model)


def _write(path: Path, model: schema.ModelT) -> Path:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _buffer(values: np.ndarray) -> schema.BufferT:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    return buffer


def _tensor(name, shape, kind, *, buffer=0, scale=None, zero_point=0) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, buffer
    if scale is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
    return tensor


def _code(operator: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = operator
    code.version = 1
    return code


def _operator(code, inputs, outputs, kind, options) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, outputs
    operator.builtinOptionsType, operator.builtinOptions = kind, options
    return operator
