"""TensorFlow Lite files: teachers, whose ensemble labels images, and published weights to start from.

Teachers' labels are cached on disk (tfcseg/training/labelling.py); training itself does not run them. Published weights
are 8-bit with one scale and zero point per tensor, biases 32-bit; norms are already folded in.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tfcseg.errors import DataError, UsageError
from tfcseg.labels.label_sets import ADE31, CITYSCAPES19, SCENES, VOC21, LabelSet
from tfcseg.model.backbones.mosaic import Mosaic
from tfcseg.model.things import Things

GRID = 128
"""Soft labels are (GRID, GRID, K) over the image scaled to a square: the resolution of the teachers' logits."""

TILE_SHARE = 0.75
"""Longest side of the two square tiles, relative to the image's long side; they show small objects larger."""


class Teacher:
    """A TensorFlow Lite segmentation network with access to its logits.

    Raises UsageError if the interpreter is not installed, DataError if the file is not such a network.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the memory of all tensors; logits are not an output
            self._network = open_interpreter(path, experimental_preserve_all_tensors=True, num_threads=threads)
        self._input = self._network.get_input_details()[0]
        self._output = self._network.get_output_details()[0]
        spatial = tuple(int(n) for n in self._output["shape"][:3])
        candidates = [
            tensor
            for tensor in self._network.get_tensor_details()
            if tensor["index"] != self._input["index"]
            and len(tensor["shape"]) == 4
            and tuple(tensor["shape"][:3]) == spatial
            and 1 < tensor["shape"][3] <= 255
        ]
        if not candidates or min(spatial[1:]) < GRID or self._input["dtype"] is not np.uint8:
            raise DataError(
                f"{path} does not take 8-bit RGB, or has no logits of its output's size ({GRID} px or more)"
            )
        self._logits = candidates[-1]
        self.num_classes = int(self._logits["shape"][3])
        self.size = (int(self._input["shape"][1]), int(self._input["shape"][2]))

    def probabilities(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities (GRID, GRID, K) of an (H, W, 3) RGB image of any size."""
        self._see(image)
        scale, zero_point = self._logits["quantization"]  # (0, 0) where logits are not quantised
        quantised = self._network.get_tensor(self._logits["index"])[0]
        # The network enlarges logits from about GRID: take the centre of each block.
        rows, columns = (((np.arange(GRID) + 0.5) * side / GRID).astype(np.intp) for side in quantised.shape[:2])
        sampled = quantised[np.ix_(rows, columns)].astype(np.float32)
        logits = (sampled - zero_point) * scale if scale else sampled
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), np.float32)

    def labels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class indices of an (H, W, 3) RGB image of any size, scaled to the network's own output size."""
        self._see(image)
        output = self._network.get_tensor(self._output["index"])[0]
        return np.asarray(output if output.ndim == 2 else output.argmax(axis=-1), dtype=np.uint8)

    def _see(self, image: NDArray[np.uint8]) -> None:
        height, width = self.size
        how = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
        squeezed = cv2.resize(image, (width, height), interpolation=how)
        self._network.set_tensor(self._input["index"], squeezed[None])
        self._network.invoke()


def teacher_files(paths: Sequence[Path]) -> list[Path]:
    """List teacher files and those in folders; UsageError for a path without any."""
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("[!.]*.tflite")) if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            raise UsageError(f"--teachers {path}: no such .tflite file, or none in this folder")
        files += found
    return files


def teachers_by_classes(paths: Sequence[Path]) -> dict[int, list[Path]]:
    """Group teachers by their number of classes, in the order of ``paths``; DataError for an unknown number."""
    groups: dict[int, list[Path]] = {}
    for path in paths:
        known = Teacher(path).num_classes
        if known not in (len(ADE31), len(VOC21), len(CITYSCAPES19)):
            raise DataError(
                f"teacher {path} has {known} classes, not ADE20K's {len(ADE31)}, Pascal VOC's {len(VOC21)} or "
                f"Cityscapes' {len(CITYSCAPES19)}; leave it out"
            )
        groups.setdefault(known, []).append(path)
    return groups


def taught_labels(paths: Sequence[Path]) -> LabelSet:
    """Classes of a student of these teachers: SCENES if one knows Pascal VOC's, else ADE31.

    Raises DataError if none knows ADE31's classes, or if one knows Cityscapes' and none Pascal VOC's.
    """
    groups = teachers_by_classes(paths)
    if len(ADE31) not in groups:
        known = "Pascal VOC's objects" if len(VOC21) in groups else "Cityscapes' streets"
        raise DataError(f"teacher {paths[0]} knows {known} only; add one of ADE20K's {len(ADE31)} classes")
    if len(CITYSCAPES19) in groups and len(VOC21) not in groups:
        raise DataError("a teacher of Cityscapes' classes needs one of Pascal VOC's; add one")
    return SCENES if len(VOC21) in groups else ADE31


def soft_labels(teachers: Sequence[Teacher], image: NDArray[np.uint8], *, tiles: bool) -> NDArray[np.uint8]:
    """Mean of the teachers' probabilities as (GRID, GRID, K) uint8 (255 = certain).

    ``tiles`` adds two square tiles at the image's ends, labelled by the teachers in turn, to the mean at their places.
    """
    total = np.sum([teacher.probabilities(image) for teacher in teachers], axis=0)
    views = np.full((GRID, GRID, 1), len(teachers), np.float32)
    if tiles:
        shape = image.shape[:2]
        side = min(*shape, round(TILE_SHARE * max(shape)))
        cells_wh = (round(GRID * side / shape[1]), round(GRID * side / shape[0]))
        for number in range(2):
            y, x = (number * (length - side) for length in shape)
            cell_y, cell_x = number * (GRID - cells_wh[1]), number * (GRID - cells_wh[0])
            tile = teachers[number % len(teachers)].probabilities(
                np.ascontiguousarray(image[y : y + side, x : x + side])
            )
            here = (slice(cell_y, cell_y + cells_wh[1]), slice(cell_x, cell_x + cells_wh[0]))
            total[here] += cv2.resize(tile, cells_wh, interpolation=cv2.INTER_LINEAR)
            views[here] += 1
    return np.asarray(np.rint(total * (255.0 / views)), np.uint8)


_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_LAYER = re.compile(r"([^;]*)/weights_quant/")

_OF_THINGS = {
    "stem": "MobilenetV2/Conv",
    "here": "aspp0",
    "picture": "image_pooling",
    "joined": "concat_projection",
    "classifier": "logits/semantic",
}


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
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
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
            raise DataError(f"{path}: {weight['name']!r} is not an 8-bit weight")
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
    _copy(read_layers(path), layer_name, backbone, path)


def load_things(network: Things, path: str | Path) -> None:
    """Copy a published DeepLabv3 with MobileNetV2 into ``network``; DataError if shapes differ."""
    _copy(read_layers(path), layer_of_things, network, path)


def _copy(layers: Mapping[str, FloatLayer], named: Callable[[str], str], network: nn.Module, path: str | Path) -> None:
    """Copy ``layers`` of a file into the convolutions of ``network``, whose names ``named`` translates."""
    state = network.state_dict()
    for name in [name.removesuffix(".weight") for name in state if name.endswith(".weight")]:
        layer = layers.get(named(name))
        if layer is None or layer.weight.shape != state[f"{name}.weight"].shape:
            raise DataError(f"{path} has no {named(name)} of the shape {tuple(state[f'{name}.weight'].shape)}")
        state[f"{name}.weight"], state[f"{name}.bias"] = layer.weight, layer.bias
    network.load_state_dict(state)


def layer_of_things(name: str) -> str:
    """Name in the file of a convolution of `Things`, such as ``blocks.3.expand``."""
    part, *rest = name.split(".")
    return f"MobilenetV2/{_block(rest)}" if part == "blocks" else _OF_THINGS[part]


def _block(number_and_part: Sequence[str]) -> str:
    number, part = int(number_and_part[0]), number_and_part[1]
    return f"expanded_conv{f'_{number}' if number else ''}/{part}"


def layer_name(name: str) -> str:
    """Name in the file of a convolution of our backbone, such as ``blocks.3.expand.conv``."""
    parts = name.split(".")
    if parts[0] == "blocks":
        return f"MobilenetV3/{_block(parts[1:])}"
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
