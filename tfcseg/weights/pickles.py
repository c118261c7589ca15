"""Read tensors and plain data from files written by ``torch.save``, without running code.

Training programs store logs and settings beside the weights. Objects of their known classes are replaced by empty ones;
all else that is neither a tensor nor plain data is refused.
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
"""Classes and functions in logs and settings of training programs."""
_STATE_DICTS = ("state_dict", "model_state_dict", "model")
"""Keys of tensors in checkpoints, if they are not at the top level."""
_COLOURS_OF_TERMINALS = re.compile(r"\x1b\[[0-9;]*m")
_MAX_REASON = 200

# Errors of torch.load for damaged or forbidden content; its zip reader raises RuntimeError, its unpickler the others.
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
    """Replaces an object that is not needed, and ignores its content."""

    def __init__(self, *args: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Ignore an item of a list."""

    def extend(self, items: object) -> None:
        """Ignore items of a list."""

    def __setitem__(self, key: object, value: object) -> None:
        pass


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Mapping[object, object]]:
    """Read named tensors and ``meta`` data, if any, from a file written by ``torch.save``.

    Raises WeightsError for damaged files, and files with more than plain data or without named tensors.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no named tensors; give a SegFormer's state_dict")
    tensors = next((content[key] for key in _STATE_DICTS if isinstance(content.get(key), Mapping)), content)
    if not all(map(_is_named_array, tensors.items())):
        raise WeightsError(f"{path} holds other things than named tensors; give a SegFormer's state_dict")
    # Strided tensors can claim far more memory than the file has; copies would need all of it.
    if sum(tensor.nbytes for tensor in tensors.values()) > FILE_LIMIT_BYTES:
        raise WeightsError(
            f"{path} claims tensors of more than {FILE_LIMIT_BYTES >> 30} GiB, too large for a SegFormer"
        )
    meta = content.get("meta")
    return dict(tensors), meta if isinstance(meta, Mapping) else {}


def _load(path: Path) -> object:
    with open_weights(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols, which concern the writing program
        try:
            with torch.serialization.safe_globals([(_Nothing, name) for name in _others(path)]):
                return torch.load(file, map_location="cpu", weights_only=True)
        except _PICKLE_ERRORS as error:
            raise WeightsError(
                f"{path} is damaged or holds more than tensors, which is not opened ({_first_words(error)})"
            ) from None


def _others(path: Path) -> list[str]:
    """Names of classes in the file that are replaced by empty objects; WeightsError if there are others."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except _PICKLE_ERRORS:  # damaged, or older than zip archives; torch.load decides
        return []
    for name in found:
        if not _LEFT_EMPTY.fullmatch(name):
            raise WeightsError(
                f"{path} holds more than tensors ({name[:_MAX_REASON]}), which is not opened; save its state_dict alone"
            )
    return found


def _first_words(error: Exception) -> str:
    """First sentence of torch's message, without colours."""
    line = _COLOURS_OF_TERMINALS.sub("", str(error)).partition("\n")[0].partition(". ")[0]
    return "".join(letter for letter in line if letter.isprintable())[:_MAX_REASON] or type(error).__name__


def _is_named_array(item: tuple[object, object]) -> bool:
    """Whether an entry is a name and a dense tensor (not sparse, quantised or meta)."""
    name, tensor = item
    if not (isinstance(name, str) and isinstance(tensor, Tensor)):
        return False
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
