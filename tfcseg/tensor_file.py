"""safetensors files from anywhere: sizes are checked before anything is parsed or allocated; no pickle is opened."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from tfcseg.errors import OutputError, WeightsError

FILE_LIMIT_BYTES = 2 << 30
"""More than a SegFormer-B5 checkpoint in float32 with its optimiser state."""

HEADER_LIMIT_BYTES = 1 << 20
"""About eight times the header of MiT-B5, the longest of ours."""

_LENGTH_BYTES = 8
_DTYPES = {"BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64"}
_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")
_WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """Content of one safetensors file, and the SHA-256 of exactly the bytes that it was read from."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]
    sha256: str


def read_metadata(path: Path) -> dict[str, str]:
    """Text metadata in the file's header, without reading its tensors; WeightsError if the file is not sound."""
    with open_weights(path) as file:
        return _read_header(file, path)


def read_tensor_file(path: Path) -> TensorFile:
    """Whole file on the CPU; WeightsError if it is missing, foreign, truncated or too large."""
    with open_weights(path) as file:
        metadata = _read_header(file, path)
        file.seek(0)
        data = file.read()
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise _damaged(path, str(error)) from None
    return TensorFile(metadata, tensors, hashlib.sha256(data).hexdigest())


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write under a temporary name, then rename; returns the SHA-256. OutputError if the file cannot be written."""
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, dict(metadata))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write weights {path}: {error.strerror}") from None
    return hashlib.sha256(data).hexdigest()


def check_fits(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """WeightsError unless ``tensors`` has exactly the names and shapes of ``expected``, and sound numbers.

    ``expected`` may be on the meta device. Where it has floats, half and single precision are accepted.
    """
    leftover, missing = sorted(tensors.keys() - expected.keys()), sorted(expected.keys() - tensors.keys())
    if leftover:
        raise WeightsError(f"{path} has tensors that the network has no place for: {_some(leftover)}")
    if missing:
        raise WeightsError(f"{path} lacks tensors that the network needs: {_some(missing)}")
    for name, wanted in expected.items():
        found = tensors[name]
        if found.shape != wanted.shape:
            shapes = f"shape {tuple(found.shape)}, the network needs {tuple(wanted.shape)}"
            raise WeightsError(f"{path}: tensor {name!r} has {shapes}")
        dtypes = _WEIGHT_DTYPES if wanted.is_floating_point() else (wanted.dtype,)
        if found.dtype not in dtypes:
            raise WeightsError(f"{path}: tensor {name!r} is {found.dtype}; expected {' or '.join(map(str, dtypes))}")
        if not torch.isfinite(found).all():
            raise WeightsError(f"{path}: tensor {name!r} holds NaN or infinity; these weights cannot be used")


def is_pickle(path: Path) -> bool:
    """Whether the file begins like ``torch.save``'s, which is a pickle; WeightsError if it cannot be read."""
    with open_weights(path) as file:
        return _starts_pickle(file.read(_LENGTH_BYTES))


def open_weights(path: Path) -> BinaryIO:
    """Open a regular file of acceptable size; WeightsError otherwise."""
    if not path.is_file():
        raise WeightsError(f"no weights file {path}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror}") from None
    if os.fstat(file.fileno()).st_size > FILE_LIMIT_BYTES:
        file.close()
        raise WeightsError(f"{path} is larger than {FILE_LIMIT_BYTES >> 30} GiB, too large for weights of ours")
    return file


def parse_json(text: str) -> object:
    """JSON of untrusted origin; ValueError for anything odd: duplicate keys, NaN, nesting beyond Python's depth."""
    try:
        return json.loads(text, object_pairs_hook=_object_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def _read_header(file: BinaryIO, path: Path) -> dict[str, str]:
    """Check the header against the size of the file; returns its metadata. Leaves the position behind the header."""
    file_bytes = os.fstat(file.fileno()).st_size
    start = file.read(_LENGTH_BYTES)
    if _starts_pickle(start):
        raise WeightsError(f"{path} is a PyTorch pickle, which can run code when opened; only safetensors files are")
    header_bytes = int.from_bytes(start, "little")
    if len(start) < _LENGTH_BYTES or header_bytes > file_bytes - _LENGTH_BYTES:
        raise _damaged(path, "its header is longer than the file")
    if header_bytes > HEADER_LIMIT_BYTES:
        raise _damaged(path, f"its header is longer than {HEADER_LIMIT_BYTES} bytes")
    try:
        header = parse_json(file.read(header_bytes).decode())
    except ValueError as error:
        raise _damaged(path, f"its header cannot be read: {error}") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, "its metadata is not text")
    data_bytes = max((_end_of_tensor(path, name, entry) for name, entry in header.items()), default=0)
    if _LENGTH_BYTES + header_bytes + data_bytes != file_bytes:
        raise _damaged(path, f"{file_bytes} bytes instead of {_LENGTH_BYTES + header_bytes + data_bytes}")
    return metadata


def _starts_pickle(start: bytes) -> bool:
    """Whether the first 8 bytes are a pickle's; a length that begins with the same byte is told apart by its zeros."""
    return start.startswith(_PICKLE_STARTS) and int.from_bytes(start, "little") > HEADER_LIMIT_BYTES


def _end_of_tensor(path: Path, name: str, entry: object) -> int:
    """Offset behind a tensor's last byte according to its header entry; WeightsError if the entry makes no sense."""
    match entry:
        case {"dtype": str(dtype), "shape": [*_], "data_offsets": [int(), int(end)]} if dtype in _DTYPES:
            return end
    raise _damaged(path, f"the header entry of tensor {name!r} makes no sense")


def _damaged(path: Path, reason: str) -> WeightsError:
    reason = " ".join(reason.split())
    return WeightsError(f"{path} is not a safetensors file, or a damaged one ({reason}); get it again")


def _some(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice in a JSON object")
    return result


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
