"""Read published SegFormers: a safetensors or PyTorch file, or a Hugging Face folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from tfcseg.errors import WeightsError
from tfcseg.weights.foreign import refuse_other_format, refuse_other_model_type
from tfcseg.weights.pickles import read_checkpoint
from tfcseg.weights.published import Published, read_published
from tfcseg.weights.tensor_file import is_pickle, read_tensor_file
from tfcseg.weights.tensor_header import HEADER_LIMIT_BYTES, open_weights

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
_BESIDE = ("config.json", "preprocessor_config.json")
"""Files that determine preprocessing or class names."""
_OFFERED = 3


class SegformerFile(NamedTuple):
    """Tensors under their published names, and facts about them."""

    path: Path
    """The weights file, also if a folder was given."""
    tensors: Mapping[str, Tensor]
    about: Published
    sha256: str
    """Of the weights file and config.json and preprocessor_config.json beside it."""


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
    return SegformerFile(path, tensors, read_published(path, meta), _sha256(path))


def weights_in(folder: Path) -> Path:
    """Find the weights file in a Hugging Face folder; WeightsError lists other files there."""
    config = folder / "config.json"
    if config.is_file():
        with open_weights(config) as file:
            text = file.read(HEADER_LIMIT_BYTES)
        try:
            refuse_other_model_type(folder, json.loads(text))
        except ValueError as error:
            raise WeightsError(f"{config} cannot be read ({error}); get it again") from None
    file_ = next((folder / name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if file_ is not None:
        return file_
    missing = f"{folder} is a folder without {' or '.join(FOLDER_FILES)}"
    if any(folder.glob("*.index.json")):
        raise WeightsError(f"{missing}: weights in several files are not supported; save them as one")
    inside = [found.parent for found in folder.glob("*/config.json")]
    files = [found for suffix in ("pth", "pt", "safetensors") for found in folder.glob(f"*.{suffix}")]
    names = sorted(map(str, (*inside, *files)))[-_OFFERED:]
    raise WeightsError(missing + (f"; give one of {', '.join(names)}" if names else ""))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for file in (path, *(path.with_name(name) for name in _BESIDE)):
        if file.is_file():
            with file.open("rb") as opened:
                while part := opened.read(1 << 20):
                    digest.update(part)
    return digest.hexdigest()
