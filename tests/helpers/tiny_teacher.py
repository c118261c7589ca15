"""Real TensorFlow Lite networks for tests, written by hand: a 1×1 convolution from colour to class, then argmax."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

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
