"""Read published SegFormers: a safetensors or PyTorch file, or a Hugging Face folder.

Files written by ``torch.save`` are read without running code. Training programs store logs and settings beside the
weights; objects of their known classes are replaced by empty ones, and anything else that is neither a tensor nor plain
data is refused.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tfcseg.errors import WeightsError
from tfcseg.spelling import one_line
from tfcseg.weights.tensor_file import read_tensor_file
from tfcseg.weights.tensor_header import FILE_LIMIT_BYTES, is_pickle, open_weights, read_beside

_STARTS = (
    (b"version https://git-lfs", "the address of a file in Git LFS, not the file; run git lfs pull"),
    (b"<!doctype", "a web page, not the file; download it again"),
    (b"<html", "a web page, not the file; download it again"),
)
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
_BESIDE = ("config.json", "preprocessor_config.json")  # files that determine preprocessing or class names
ADVICE = "tfcseg runs SegFormers; tfcseg steady, eval --predictions and compare --baseline take masks of any program"


def refuse_other_format(path: Path) -> None:
    """Raise WeightsError if the first bytes or the suffix show that the file holds no PyTorch weights."""
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    what = next((meaning for mark, meaning in _STARTS if start.startswith(mark)), None)
    if what is None and path.suffix.lower() in {".onnx", ".tflite", ".engine", ".mlmodel", ".pb"}:
        what = f"a {path.suffix.lower()} file; give PyTorch or safetensors weights"
    if what is not None:
        raise WeightsError(f"{path} is {what}")


_LEFT_EMPTY = re.compile(r"(numpy|mmengine|mmcv|mmseg)(\.\w+)+|argparse\.Namespace")
"""Classes and functions in logs and settings of training programs."""
_STATE_DICTS = ("state_dict", "model_state_dict", "model")
"""Keys of tensors in checkpoints, if they are not at the top level."""
_COLOURS_OF_TERMINALS = re.compile(r"\x1b\[[0-9;]*m")
_MAX_REASON = 200


class _Nothing:
    """Replaces an object that is not needed, and ignores its content."""

    def __init__(self, *content: object, **named: object) -> None:
        pass

    __setstate__ = append = extend = __setitem__ = __init__


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Mapping[object, object]]:
    """Read named tensors and ``meta`` data, if any, from a file written by ``torch.save``. Raises WeightsError for
    damaged files, and files with more than plain data or without named tensors."""
    content = _load(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no named tensors; give a SegFormer's state_dict")
    tensors = next((content[key] for key in _STATE_DICTS if isinstance(content.get(key), Mapping)), content)
    if not all(isinstance(name, str) and _is_dense(tensor) for name, tensor in tensors.items()):
        raise WeightsError(f"{path} holds other things than named tensors; give a SegFormer's state_dict")
    # Strided tensors can claim far more memory than the file has; copies would need all of it.
    if sum(tensor.nbytes for tensor in tensors.values()) > FILE_LIMIT_BYTES:
        raise WeightsError(
            f"{path} claims tensors of more than {FILE_LIMIT_BYTES >> 30} GiB, too large for a SegFormer"
        )
    meta = content.get("meta")
    return dict(tensors), meta if isinstance(meta, Mapping) else {}


def _load(path: Path) -> object:
    others = _others(path)
    with open_weights(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols, which concern the writing program
        try:
            with torch.serialization.safe_globals([(_Nothing, name) for name in others]):
                return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001  # damaged files raise errors of many kinds
            line = _COLOURS_OF_TERMINALS.sub("", str(error)).partition("\n")[0].partition(". ")[0]
            reason = one_line(line, _MAX_REASON) or type(error).__name__
            raise WeightsError(
                f"{path} is damaged or holds more than tensors, which is not opened ({reason})"
            ) from None


def _others(path: Path) -> list[str]:
    """Names of classes in the file that are replaced by empty objects; WeightsError if there are others."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001  # damaged, or older than zip archives; torch.load decides
        return []
    for name in found:
        if not _LEFT_EMPTY.fullmatch(name):
            raise WeightsError(
                f"{path} holds more than tensors ({one_line(name, _MAX_REASON)}), which is not opened; "
                "save its state_dict alone"
            )
    return found


def _is_dense(value: object) -> bool:
    """Whether it is a tensor that is not sparse, quantised or meta."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return value.device.type == "cpu" and not value.is_quantized


class SegformerFile(NamedTuple):
    """Tensors under their published names."""

    path: Path  # the weights file, also if a folder was given
    tensors: Mapping[str, Tensor]
    meta: Mapping[object, object]  # other content of a checkpoint
    sha256: str  # hash of the weights file with config.json and preprocessor_config.json beside it


def read_segformer_file(path: Path) -> SegformerFile:
    """Read a safetensors or PyTorch file, or a Hugging Face folder; WeightsError if it cannot be used."""
    if path.is_dir():
        path = weights_in(path)
    if path.is_file():
        refuse_other_format(path)
    if is_pickle(path):
        tensors, meta = read_checkpoint(path)
    else:
        tensors, meta = read_tensor_file(path).tensors, {}
    return SegformerFile(path, tensors, meta, _sha256(path))


def weights_in(folder: Path) -> Path:
    """Find the weights file in a Hugging Face folder; WeightsError lists other files there."""
    config = folder / "config.json"
    if config.is_file():
        content = read_beside(config, "get it again")
        kind = content.get("model_type") if isinstance(content, dict) else None
        if kind != "segformer":
            raise WeightsError(f"{folder} is a {repr(kind)[:60]} model by its config.json; {ADVICE}")
    file_ = next((folder / name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if file_ is not None:
        return file_
    missing = f"{folder} is a folder without {' or '.join(FOLDER_FILES)}"
    if any(folder.glob("*.index.json")):
        raise WeightsError(f"{missing}: weights in several files are not supported; save them as one")
    inside = [found.parent for found in folder.glob("*/config.json")]
    files = [found for suffix in ("pth", "pt", "safetensors") for found in folder.glob(f"*.{suffix}")]
    names = sorted(map(str, (*inside, *files)))[-3:]
    raise WeightsError(missing + (f"; give one of {', '.join(names)}" if names else ""))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for file in (path, *(path.with_name(name) for name in _BESIDE)):
        if file.is_file():
            with file.open("rb") as opened:
                while part := opened.read(1 << 20):
                    digest.update(part)
    return digest.hexdigest()
