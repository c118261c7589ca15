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
from tfcseg.weights.tensor_header import LENGTH_BYTES, damaged, open_weights, read_metadata

_WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """Content of a safetensors file, and the SHA-256 of the bytes that were read."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]
    sha256: str


def read_tensor_file(path: Path) -> TensorFile:
    """Read a whole file to the CPU; WeightsError if it is missing, truncated, too large or no safetensors file."""
    metadata = read_metadata(path)  # refuses other files before they are read
    with open_weights(path) as file:
        data = file.read()
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:  # also types and shapes that PyTorch lacks
        raise damaged(path, str(error)) from None
    return TensorFile(metadata, tensors, hashlib.sha256(data).hexdigest())


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write a file, complete or not at all; returns the SHA-256. Raises OutputError on failure.

    The same content gives the same bytes: safetensors itself does not sort metadata.
    """
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    content = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[LENGTH_BYTES:start])}
    header = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % LENGTH_BYTES)  # tensors stay aligned
    data = len(header).to_bytes(LENGTH_BYTES, "little") + header + data[start:]
    with replace_atomically(path) as partial:
        partial.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def check_fits(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise WeightsError unless ``tensors`` has names and shapes of ``expected``, and finite numbers. ``expected`` may
    be on the meta device. For floats, half and single precision are accepted."""
    leftover, missing = (
        [repr(name[:100]) for name in sorted(names)]
        for names in (tensors.keys() - expected.keys(), expected.keys() - tensors.keys())
    )
    if leftover:
        raise WeightsError(f"{path} has tensors that the network does not have: {first_of(leftover, 3)}")
    if missing:
        raise WeightsError(f"{path} lacks tensors that the network needs: {first_of(missing, 3)}")
    for name, wanted in expected.items():
        found = tensors[name]
        if found.shape != wanted.shape:
            sizes = f"shape {tuple(found.shape)}, the network needs {tuple(wanted.shape)}"
            raise WeightsError(f"{path}: tensor {name!r} has {sizes}")
        dtypes = _WEIGHT_DTYPES if wanted.is_floating_point() else (wanted.dtype,)
        if found.dtype not in dtypes:
            raise WeightsError(f"{path}: tensor {name!r} is {found.dtype}; expected {' or '.join(map(str, dtypes))}")
        if not torch.isfinite(found).all():
            raise WeightsError(f"{path}: tensor {name!r} holds NaN or infinity; these weights cannot be used")
        if name.endswith("running_var") and (found < 0).any():
            raise WeightsError(f"{path}: tensor {name!r} holds negative variances; these weights cannot be used")
