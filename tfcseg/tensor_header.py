"""Headers of safetensors files from anywhere: sizes are checked before anything is parsed; no tensor is read.

A command that only wants to know what a file says of itself needs no torch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import BinaryIO, NoReturn

from tfcseg.errors import WeightsError

FILE_LIMIT_BYTES = 2 << 30
"""More than a SegFormer-B5 checkpoint in float32 with its optimiser state."""

HEADER_LIMIT_BYTES = 1 << 20
"""About eight times the header of MiT-B5, the longest of ours."""

LENGTH_BYTES = 8
"""A file begins with the length of its header."""

_DTYPES = {"BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64"}
_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")


def read_metadata(path: Path) -> dict[str, str]:
    """Text metadata in the file's header, without reading its tensors; WeightsError if the file is not sound."""
    with open_weights(path) as file:
        return read_header(file, path)


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


def read_header(file: BinaryIO, path: Path) -> dict[str, str]:
    """Check the header against the size of the file; returns its metadata. Leaves the position behind the header."""
    file_bytes = os.fstat(file.fileno()).st_size
    start = file.read(LENGTH_BYTES)
    if starts_pickle(start):
        raise WeightsError(f"{path} is a PyTorch pickle, which can run code when opened; only safetensors files are")
    header_bytes = int.from_bytes(start, "little")
    if len(start) < LENGTH_BYTES or header_bytes > file_bytes - LENGTH_BYTES:
        raise damaged(path, "its header is longer than the file")
    if header_bytes > HEADER_LIMIT_BYTES:
        raise damaged(path, f"its header is longer than {HEADER_LIMIT_BYTES} bytes")
    try:
        header = parse_json(file.read(header_bytes).decode())
    except ValueError as error:
        raise damaged(path, f"its header cannot be read: {error}") from None
    if not isinstance(header, dict):
        raise damaged(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise damaged(path, "its metadata is not text")
    data_bytes = max((_end_of_tensor(path, name, entry) for name, entry in header.items()), default=0)
    if LENGTH_BYTES + header_bytes + data_bytes != file_bytes:
        raise damaged(path, f"{file_bytes} bytes instead of {LENGTH_BYTES + header_bytes + data_bytes}")
    return metadata


def starts_pickle(start: bytes) -> bool:
    """Whether the first 8 bytes are a pickle's; a length that begins with the same byte is told apart by its zeros."""
    return start.startswith(_PICKLE_STARTS) and int.from_bytes(start, "little") > HEADER_LIMIT_BYTES


def _end_of_tensor(path: Path, name: str, entry: object) -> int:
    """Offset behind a tensor's last byte according to its header entry; WeightsError if the entry makes no sense."""
    match entry:
        case {"dtype": str(dtype), "shape": [*_], "data_offsets": [int(), int(end)]} if dtype in _DTYPES:
            return end
    raise damaged(path, f"the header entry of tensor {name!r} makes no sense")


def damaged(path: Path, reason: str) -> WeightsError:
    """Error for a file that is not what it should be."""
    reason = " ".join(reason.split())
    return WeightsError(f"{path} is not a safetensors file, or a damaged one ({reason}); get it again")


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice in a JSON object")
    return result


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
