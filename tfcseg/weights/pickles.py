"""Files that ``torch.save`` wrote: tensors and plain data are read, no code of the file is run.

Training programs store logs and settings beside the weights. Objects of classes that they are known to use come out
empty; anything else that is neither a tensor nor plain data is refused.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tfcseg.errors import WeightsError
from tfcseg.weights.tensor_header import FILE_LIMIT_BYTES, open_weights

_LEFT_EMPTY = re.compile(r"(numpy|mmengine|mmcv|mmseg)(\.\w+)+|argparse\.Namespace")
"""Classes and functions of logs and settings that training programs store."""
_STATE_DICTS = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep their tensors, if not at the top."""
_COLOURS_OF_TERMINALS = re.compile(r"\x1b\[[0-9;]*m")
_MAX_REASON = 200

# What torch.load raises on damaged or forbidden content: its zip reader RuntimeError, its unpickler all the others.
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


class _Nothing:
    """Takes the place of an object that is not needed: swallows whatever the file would have put into it."""

    def __init__(self, *args: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Drop an item of what would have been a list."""

    def extend(self, items: object) -> None:
        """Drop items of what would have been a list."""

    def __setitem__(self, key: object, value: object) -> None:
        pass


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Mapping[object, object]]:
    """Named tensors of a file that ``torch.save`` wrote, and its ``meta`` data if there are any.

    WeightsError for what is damaged, holds more than plain data, or no named tensors.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no named tensors; give a SegFormer's state_dict")
    tensors = next((content[key] for key in _STATE_DICTS if isinstance(content.get(key), Mapping)), content)
    if not all(map(_is_named_array, tensors.items())):
        raise WeightsError(f"{path} holds other things than named tensors; give a SegFormer's state_dict")
    # A tensor may repeat one number without end; what is done with it would need the room.
    if sum(tensor.nbytes for tensor in tensors.values()) > FILE_LIMIT_BYTES:
        raise WeightsError(
            f"{path} claims tensors of more than {FILE_LIMIT_BYTES >> 30} GiB, too large for a SegFormer"
        )
    meta = content.get("meta")
    return dict(tensors), meta if isinstance(meta, Mapping) else {}


def _load(path: Path) -> object:
    with open_weights(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice on pickle protocols is meant for their writers
        try:
            with torch.serialization.safe_globals([(_Nothing, name) for name in _others(path)]):
                return torch.load(file, map_location="cpu", weights_only=True)
        except _PICKLE_ERRORS as error:
            raise WeightsError(
                f"{path} is damaged or holds more than tensors, which is not opened ({_first_words(error)})"
            ) from None


def _others(path: Path) -> list[str]:
    """Names of classes in the file that can be left empty; WeightsError if there are any others."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except _PICKLE_ERRORS:  # damaged, or from before files were zip archives: opening it will tell
        return []
    for name in found:
        if not _LEFT_EMPTY.fullmatch(name):
            raise WeightsError(
                f"{path} holds more than tensors ({name[:_MAX_REASON]}), which is not opened; save its state_dict alone"
            )
    return found


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
