"""Write a network as two ONNX graphs, which run without PyTorch: one for keyframes, one for the frames between them.

They are one-sided TFC with aligned correlation, for frames of one size: a frame refers to the keyframe before it.
Normalisation is part of them. A keyframe's memory is an output of one graph and an input of the other. Left out is
sparse attention (eq. 11), whose cost depends on the picture. If the model sees keyframes at half the size, too, their
graph has a second input.

Shapes: K classes, H W input of the network, h w grid of the logits.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tfcseg.errors import TfcsegError
from tfcseg.files import replace_atomically
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.network_input import network_size, resized
from tfcseg.inference.options import checked_options
from tfcseg.model.decode_head import resize
from tfcseg.model.ops.labelling import labels_from_logits
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import Keyframe, TFCSegmenter
from tfcseg.weights.loading import LoadedModel, load_model

logger = logging.getLogger(__name__)

MEMORY = ("key_logits", "key_match", "key_high", "key_level3", "key_level4", "key_added")
"""Memory of a keyframe: outputs of its graph, inputs of the other one. ``key_logits`` are its own (1, K, h, w), and
include ``key_added``, which there is with a second input alone."""

LEAST_AGREEMENT = 0.999  # share of the pixels that must have the same label as with PyTorch

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_CHECKED_FRAMES, _CHECKED_SHIFT_PX = 3, 5


def non_keyframe_path(path: Path) -> Path:
    """Path of the graph of frames between keyframes, beside ``path``, that of the keyframes' graph."""
    return path.with_name(f"{path.stem}.non_keyframe{path.suffix}")


def write_onnx(source: str, path: Path, frame_size: tuple[int, int], size: int | None = None) -> float:
    """Write the graphs of a model for frames of ``frame_size`` (height, width) to ``path`` and beside it.

    ``size`` is the short side of the network's input, by default the model's. Returns the share of pixels whose labels
    agree with PyTorch's. TfcsegError if a package is missing, or if too few labels agree: then nothing is written.
    OutputError if the files cannot be written.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise TfcsegError(f"ONNX graphs need {', '.join(missing)}; run: pip install 'tfcseg[onnx]'")
    model = load_model(source, device="cpu", precision="fp32")
    given: dict[str, Any] = {"sides": "one", "correlation": "aligned", "threshold": 0.0}
    options = checked_options(model, **given | ({} if size is None else {"size": size}))
    images = {
        name: torch.zeros(1, *network_size(frame_size, short), 3, dtype=torch.uint8)
        for name, short in _inputs(options).items()
    }
    keyframe, non_keyframe = _graphs(load_model(source, device="cpu", precision="fp32", fold=False), options)
    with replace_atomically(path) as first, replace_atomically(non_keyframe_path(path)) as second, _quiet():
        memory = keyframe(*images.values())
        names = MEMORY[: len(memory)]
        for graph, arguments, inputs, outputs, target in (
            (keyframe, (*images.values(),), (*images,), names, first),
            (non_keyframe, (images["image"], *memory), ("image", *names), ("logits",), second),
        ):
            program: Any = torch.onnx.export(
                graph,
                arguments,
                input_names=inputs,
                output_names=outputs,
                dynamo=True,
                external_data=False,
                verbose=False,
                custom_translation_table=_translations(),
            )
            program.model.metadata_props["tfcseg"] = json.dumps(_facts(model, options, frame_size))
            program.save(target)
        agreement = _agreement(model, options, (first, second), frame_size)
        logger.info("labels of ONNX and PyTorch agree in %.3f %%", 100 * agreement, extra={"agreement": agreement})
        if agreement < LEAST_AGREEMENT:
            raise TfcsegError(
                f"{path}: only {agreement:.2%} of the labels are those of PyTorch; the graphs were not kept"
            )
    return agreement


def _inputs(options: InferenceOptions) -> dict[str, int]:
    """Short sides of the inputs of a keyframe's graph."""
    return {"image": options.size} | ({"half_size": options.size // 2} if options.uses_half_size else {})


class _Normalised(nn.Module):
    """A network that takes (1, H, W, 3) uint8 RGB."""

    def __init__(
        self, network: TFCSegmenter, mean: Sequence[float], std: Sequence[float], options: InferenceOptions
    ) -> None:
        super().__init__()
        self.network, self.options = network, options
        self.mean, self.std = (nn.Buffer(torch.tensor(values).view(1, 3, 1, 1)) for values in (mean, std))

    def input(self, image: Tensor) -> Tensor:
        return (image.permute(0, 3, 1, 2).float() - self.mean) / self.std


class _KeyframeGraph(_Normalised):
    def forward(self, image: Tensor, half_size: Tensor | None = None) -> tuple[Tensor, ...]:
        logits, memory = self.network.keyframe(self.input(image))
        if half_size is None:
            return logits, memory.match, memory.high, *memory.levels
        added = self.network.added_by_half_size(logits, self.input(half_size), self.options)
        return logits + added, memory.match, memory.high, *memory.levels, added


class _NonKeyframeGraph(_Normalised):
    def forward(
        self,
        image: Tensor,
        logits: Tensor,
        match: Tensor,
        high: Tensor,
        x3: Tensor,
        x4: Tensor,
        added: Tensor | None = None,
    ) -> Tensor:
        level2 = resize(match, (logits.shape[-2], logits.shape[-1]))
        # Sparse attention alone needs the embedding.
        memory = Keyframe(high, logits, level2, match, high=high, levels=(x3, x4), added=added)
        return self.network.non_keyframes(self.input(image), memory, self.options).logits


def _graphs(model: LoadedModel, options: InferenceOptions) -> tuple[_KeyframeGraph, _NonKeyframeGraph]:
    network, preprocessing = model.network, model.card.preprocessing
    network.requires_grad_(False)
    network.config = replace(network.config, repairs=False)
    arguments = (network, preprocessing.mean, preprocessing.std, options)
    return _KeyframeGraph(*arguments).eval(), _NonKeyframeGraph(*arguments).eval()


def _facts(model: LoadedModel, options: InferenceOptions, frame_size: tuple[int, int]) -> dict[str, Any]:
    return {
        "model": model.card.name,
        "licence": model.card.licence,
        "classes": model.labels.names,
        "palette": model.labels.palette,
        "keyframe_interval": options.keyframe_interval,
        "frame_size": frame_size,
    }


def _translations() -> dict[Any, Callable[..., Any]]:
    from onnxscript import opset18 as op

    def hypot(x: Any, y: Any) -> Any:
        return op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y)))

    return {torch.ops.prims.hypot.default: hypot}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


def _agreement(
    model: LoadedModel, options: InferenceOptions, paths: tuple[Path, Path], frame_size: tuple[int, int]
) -> float:
    """Share of the pixels of some frames whose labels are the same in ONNX and in `tfcseg.segment`."""
    import onnxruntime

    keyframe, non_keyframe = (
        onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"]) for path in paths
    )
    images = _moving_picture(frame_size)
    ours = IntervalNetwork(model, replace(options, keyframe_interval=_CHECKED_FRAMES)).stream(images)
    names = [each.name for each in keyframe.get_outputs()]
    memory: dict[str, Any] = {}
    same = []
    for image, result in zip(images, ours, strict=True):
        given = {name: resized(image, short)[None] for name, short in _inputs(options).items()}
        if not memory:
            memory = dict(zip(names, keyframe.run(None, given), strict=True))
            logits = memory["key_logits"]
        else:
            (logits,) = non_keyframe.run(None, {"image": given["image"], **memory})
        labels = labels_from_logits(torch.from_numpy(logits), frame_size)[0].numpy()
        same.append((labels == result.labels).mean())
    return float(np.mean(same))


def _moving_picture(size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    height, width = size
    shift = _CHECKED_SHIFT_PX * (_CHECKED_FRAMES - 1)
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    scene = np.asarray(cv2.resize(coarse, (width + shift, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    frames = []
    for number in range(_CHECKED_FRAMES):
        left = number * _CHECKED_SHIFT_PX
        frames.append(np.hstack([scene[:, : width // 2], scene[:, left + width // 2 : left + width]]))
    return frames
