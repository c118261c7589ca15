"""Read headers of safetensors files without torch. Files are not trusted: sizes are checked before parsing."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from tfcseg.errors import WeightsError

FILE_LIMIT_BYTES = 2 << 30
"""Enough for a SegFormer-B5 checkpoint in float32 with its optimiser state."""

HEADER_LIMIT_BYTES = 1 << 20
"""About eight times the header of MiT-B5, our longest."""

LENGTH_BYTES = 8
"""Bytes at the beginning of a file that hold the length of its header."""

_ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}
_MAX_DIMENSIONS = 8
_NAME_SHOWN = 100
_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """Text metadata, and the shape of each tensor by name."""

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


def read_header(path: Path) -> TensorHeader:
    """Read only the header; WeightsError if the file is damaged."""
    with open_weights(path) as file:
        return parse_header(file, path)


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
    """Parse JSON from an untrusted source; ValueError also for duplicate keys, NaN and deep nesting."""
    try:
        return json.loads(text, object_pairs_hook=_object_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def parse_header(file: BinaryIO, path: Path) -> TensorHeader:
    """Parse the header of an open file and check it against the file's size; leaves the position after the header."""
    file_bytes = os.fstat(file.fileno()).st_size
    start = file.read(LENGTH_BYTES)
    if starts_pickle(start):
        raise WeightsError(f"{path} is a PyTorch pickle, which could run code; give a safetensors file")
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
    places = {name: _place(path, name, entry) for name, entry in header.items()}
    data_bytes = sum(size_bytes for _, size_bytes in places.values())
    if LENGTH_BYTES + header_bytes + data_bytes != file_bytes:
        raise damaged(path, f"{file_bytes} bytes instead of {LENGTH_BYTES + header_bytes + data_bytes}")
    return TensorHeader(metadata, {name: shape for name, (shape, _) in places.items()})


def starts_pickle(start: bytes) -> bool:
    """Whether the first 8 bytes are a pickle's, and not a length that begins with the same byte."""
    return start.startswith(_PICKLE_STARTS) and int.from_bytes(start, "little") > HEADER_LIMIT_BYTES


def _place(path: Path, name: str, entry: object) -> tuple[tuple[int, ...], int]:
    """Shape and bytes of a tensor from its header entry; WeightsError for an invalid entry."""
    match entry:
        case {"dtype": str(dtype), "shape": [*sides], "data_offsets": [int(start), int(end)]} if dtype in _ITEM_BYTES:
            is_sound = len(sides) <= _MAX_DIMENSIONS and all(map(_is_side, sides))
            # Check before multiplying, since numbers may be as long as the header.
            if is_sound and end - start == math.prod(sides) * _ITEM_BYTES[dtype]:
                return tuple(sides), end - start
    raise damaged(path, f"the header entry of tensor {shortened(name)} is invalid")


def _is_side(side: object) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and 0 <= side <= FILE_LIMIT_BYTES


def shortened(name: str) -> str:
    """Quote a tensor's name for a message, shortened."""
    return repr(name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}…")


def damaged(path: Path, reason: str) -> WeightsError:
    """Make the error for an invalid safetensors file."""
    reason = " ".join(reason.split())
    return WeightsError(f"{path} is not a safetensors file, or a damaged one ({reason}); get it again")


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice in a JSON object")
    return result


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
