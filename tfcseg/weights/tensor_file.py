"""Read and write safetensors files. Files are not trusted: sizes are checked before parsing and allocation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from tfcseg.errors import WeightsError
from tfcseg.files import replace_atomically
from tfcseg.spelling import first_of
from tfcseg.weights.tensor_header import LENGTH_BYTES, damaged, open_weights, read_header, shortened, starts_pickle

_NAMES_SHOWN = 3
_WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """Content of a safetensors file, and the SHA-256 of the bytes that were read."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]
    sha256: str


def read_tensor_file(path: Path) -> TensorFile:
    """Read a whole file to the CPU; WeightsError if it is missing, truncated, too large or no safetensors file."""
    read_header(path)  # refuse other files before they are read
    with open_weights(path) as file:
        data = file.read()
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:  # the latter for types that PyTorch lacks
        raise damaged(path, str(error)) from None
    metadata = json.loads(data[LENGTH_BYTES : _header_end(data)]).get("__metadata__", {})
    return TensorFile(metadata, tensors, hashlib.sha256(data).hexdigest())


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write a file, complete or not at all; returns the SHA-256. Raises OutputError on failure."""
    data = _serialise(tensors, metadata)
    with replace_atomically(path) as partial:
        partial.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    """Raise WeightsError unless ``shapes`` are those of ``expected``, which may be on the meta device."""
    leftover, missing = (
        [shortened(name) for name in sorted(names)]
        for names in (shapes.keys() - expected.keys(), expected.keys() - shapes.keys())
    )
    if leftover:
        raise WeightsError(f"{path} has tensors that the network does not have: {first_of(leftover, _NAMES_SHOWN)}")
    if missing:
        raise WeightsError(f"{path} lacks tensors that the network needs: {first_of(missing, _NAMES_SHOWN)}")
    for name, wanted in expected.items():
        if shapes[name] != tuple(wanted.shape):
            sizes = f"shape {shapes[name]}, the network needs {tuple(wanted.shape)}"
            raise WeightsError(f"{path}: tensor {name!r} has {sizes}")


def check_fits(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise WeightsError unless ``tensors`` has names and shapes of ``expected``, and finite numbers.

    ``expected`` may be on the meta device. For floats, half and single precision are accepted.
    """
    check_shapes(path, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, expected)
    for name, wanted in expected.items():
        found = tensors[name]
        dtypes = _WEIGHT_DTYPES if wanted.is_floating_point() else (wanted.dtype,)
        if found.dtype not in dtypes:
            raise WeightsError(f"{path}: tensor {name!r} is {found.dtype}; expected {' or '.join(map(str, dtypes))}")
        if not torch.isfinite(found).all():
            raise WeightsError(f"{path}: tensor {name!r} holds NaN or infinity; these weights cannot be used")
        if name.endswith("running_var") and (found < 0).any():
            raise WeightsError(f"{path}: tensor {name!r} holds negative variances; these weights cannot be used")


def is_pickle(path: Path) -> bool:
    """Whether the file begins like those of ``torch.save``, which are pickles; WeightsError if it cannot be read."""
    with open_weights(path) as file:
        return starts_pickle(file.read(LENGTH_BYTES))


def _serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Bytes of a file, the same for the same content: safetensors itself does not sort metadata."""
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    start = _header_end(data)
    entries = json.loads(data[LENGTH_BYTES:start])
    content = {"__metadata__": dict(sorted(metadata.items())), **entries}
    header = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % LENGTH_BYTES)  # tensors stay aligned
    return len(header).to_bytes(LENGTH_BYTES, "little") + header + data[start:]


def _header_end(data: bytes) -> int:
    return LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
