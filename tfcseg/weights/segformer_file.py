"""SegFormers as they are published: a safetensors or PyTorch file, or a Hugging Face folder with its config.json."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tfcseg.errors import DataError, WeightsError
from tfcseg.labels.label_sets import LabelSet, distinct_palette
from tfcseg.weights.tensor_file import is_pickle, read_tensor_file
from tfcseg.weights.tensor_header import FILE_LIMIT_BYTES, HEADER_LIMIT_BYTES, open_weights, parse_json

_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
# What torch.load raises on damaged or forbidden content: its zip reader RuntimeError, its unpickler all the others.
_COLOURS_OF_TERMINALS = re.compile(r"\x1b\[[0-9;]*m")
_MAX_REASON = 200

_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    struct.error,
    AssertionError,
)


class SegformerFile(NamedTuple):
    """Tensors under their published names, with the class names and colours that came along, if any."""

    tensors: Mapping[str, Tensor]
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def label_set(self, path: Path, num_classes: int) -> LabelSet:
        """Labels as the file names them, else numbered. Names that occur twice get a number: ours are unique."""
        names = self.names or tuple(f"class {index}" for index in range(num_classes))
        unique: list[str] = []
        for name in names:
            count = names[: len(unique)].count(name)
            unique.append(f"{name} ({count + 1})" if count else name)
        palette = self.palette if len(self.palette) == len(names) else distinct_palette(len(names))
        try:
            return LabelSet(path.stem, tuple(unique), palette)
        except DataError as error:
            raise WeightsError(f"{path}: {error}; name the classes yourself") from None


def read_segformer_file(path: Path) -> SegformerFile:
    """Read a safetensors or PyTorch file, or a Hugging Face folder; WeightsError if it cannot be used."""
    if path.is_dir():
        file = next((path / name for name in _FOLDER_FILES if (path / name).is_file()), None)
        if file is None:
            raise WeightsError(f"{path} is a folder without {' or '.join(_FOLDER_FILES)}")
        path = file
    names = _names_in_config(path.with_name("config.json"))
    if not is_pickle(path):
        return SegformerFile(read_tensor_file(path).tensors, names, ())
    content = _read_pickle(path)
    tensors = content.get("state_dict", content)
    if not isinstance(tensors, Mapping) or not all(map(_is_named_array, tensors.items())):
        raise WeightsError(f"{path} holds other things than named tensors; give a SegFormer's state_dict")
    # A tensor may repeat one number without end; what is done with it would need the room.
    if sum(tensor.nbytes for tensor in tensors.values()) > FILE_LIMIT_BYTES:
        raise WeightsError(
            f"{path} claims tensors of more than {FILE_LIMIT_BYTES >> 30} GiB, too large for a SegFormer"
        )
    meta = content.get("meta")
    if not isinstance(meta, Mapping):
        return SegformerFile(tensors, names, ())
    return SegformerFile(tensors, _texts(meta.get("CLASSES")) or names, _colours(meta.get("PALETTE")))


def _read_pickle(path: Path) -> Mapping[object, object]:
    """Load what ``torch.save`` wrote, if it is a mapping of plain data; no code of the file is run."""
    with open_weights(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice on pickle protocols is meant for their writers
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except _PICKLE_ERRORS as error:
            raise WeightsError(
                f"{path} is damaged or holds more than tensors, which is not opened ({_first_words(error)})"
            ) from None
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no named tensors; give a SegFormer's state_dict")
    return content


def _first_words(error: Exception) -> str:
    """What torch said first, without its colours and the advice that follows."""
    line = _COLOURS_OF_TERMINALS.sub("", str(error)).partition("\n")[0].partition(". ")[0]
    return "".join(letter for letter in line if letter.isprintable())[:_MAX_REASON] or type(error).__name__


def _is_named_array(item: tuple[object, object]) -> bool:
    """Whether an entry is a name and a tensor with all its numbers at hand (not sparse, quantised or meta)."""
    name, tensor = item
    if not (isinstance(name, str) and isinstance(tensor, Tensor)):
        return False
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _names_in_config(path: Path) -> tuple[str, ...]:
    """Class names of a Hugging Face ``config.json``; empty if there is no such file or it is not a SegFormer's."""
    if not path.is_file():
        return ()
    with open_weights(path) as file:
        text = file.read(HEADER_LIMIT_BYTES)
    try:
        config = parse_json(text.decode())
    except ValueError as error:
        raise WeightsError(f"{path} cannot be read ({error}); remove it or get it again") from None
    if not isinstance(config, dict) or config.get("model_type") != "segformer":
        return ()
    table = config.get("id2label")
    return _texts([table.get(str(index)) for index in range(len(table))]) if isinstance(table, dict) else ()


def _texts(value: object) -> tuple[str, ...]:
    """Take the texts of a list; empty if it is anything else."""
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        return ()
    return tuple(value)


def _colours(value: object) -> tuple[tuple[int, int, int], ...]:
    """Take the RGB triples of a list; empty if it is anything else."""
    colours = []
    for entry in value if isinstance(value, list | tuple) else ():
        match entry:
            case [int(red), int(green), int(blue)] if {red, green, blue} <= set(range(256)):
                colours.append((red, green, blue))
            case _:
                return ()
    return tuple(colours)
