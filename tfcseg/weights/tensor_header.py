"""Read headers of safetensors files, and JSON beside weights, without torch. No file is trusted: sizes have limits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from tfcseg.errors import WeightsError
from tfcseg.files import parse_json
from tfcseg.spelling import one_line

FILE_LIMIT_BYTES = 2 << 30
"""Enough for a SegFormer-B5 checkpoint in float32 with its optimiser state."""

HEADER_LIMIT_BYTES = 1 << 20
"""About eight times the header of MiT-B5, our longest."""

LENGTH_BYTES = 8
"""Bytes at the beginning of a file that hold the length of its header."""

_MAX_DIMENSIONS = 8
_NAME_SHOWN, _REASON_SHOWN = 100, 200
_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """Text metadata, and the shape of each tensor by name."""

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


def read_header(path: Path) -> TensorHeader:
    """Read the header, which must fit the file; WeightsError if the file is damaged."""
    with open_weights(path) as file:
        start = file.read(LENGTH_BYTES)
    if starts_pickle(start):
        raise WeightsError(f"{path} is a PyTorch pickle, which could run code; give a safetensors file")
    if len(start) == LENGTH_BYTES and int.from_bytes(start, "little") > HEADER_LIMIT_BYTES:
        raise damaged(path, f"its header is longer than {HEADER_LIMIT_BYTES} bytes")
    try:
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise damaged(path, str(error).removeprefix("Error while deserializing header: ")) from None
    for name, shape in shapes.items():
        if len(shape) > _MAX_DIMENSIONS or max(shape, default=0) > FILE_LIMIT_BYTES:
            raise damaged(path, f"the shape of tensor {shortened(name)} is invalid")
    return TensorHeader(metadata, shapes)


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


def read_beside(path: Path, advice: str) -> Any:
    """Read a small JSON file beside weights; WeightsError with ``advice`` if it is none."""
    with open_weights(path) as file:
        text = file.read(HEADER_LIMIT_BYTES)
    try:
        return parse_json(text)
    except ValueError as error:
        raise WeightsError(f"{path} cannot be read ({error}); {advice}") from None


def starts_pickle(start: bytes) -> bool:
    """Whether the first 8 bytes are a pickle's, and not a length that begins with the same byte."""
    return start.startswith(_PICKLE_STARTS) and int.from_bytes(start, "little") > HEADER_LIMIT_BYTES


def shortened(name: str) -> str:
    """Quote a tensor's name for a message, shortened."""
    return repr(name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}…")


def damaged(path: Path, reason: str) -> WeightsError:
    """Make the error for an invalid safetensors file."""
    line = one_line(reason, _REASON_SHOWN)
    return WeightsError(f"{path} is not a safetensors file, or a damaged one ({line}); get it again")
