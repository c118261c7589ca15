"""Read headers of safetensors files, and JSON beside weights, without torch. No file is trusted: sizes have limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from tfcseg.errors import WeightsError
from tfcseg.files import errors_as, parse_json
from tfcseg.spelling import one_line

FILE_LIMIT_BYTES = 2 << 30  # enough for a SegFormer-B5 checkpoint in float32 with its optimiser state
HEADER_LIMIT_BYTES = 1 << 20  # about eight times the header of MiT-B5, our longest
LENGTH_BYTES = 8  # bytes at the beginning of a file that hold the length of its header


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts in the header, which must fit the file; WeightsError if the file is damaged."""
    if is_pickle(path):
        raise WeightsError(f"{path} is a PyTorch pickle, which could run code; give a safetensors file")
    with open_weights(path) as file:
        if int.from_bytes(file.read(LENGTH_BYTES), "little") > HEADER_LIMIT_BYTES:
            raise damaged(path, f"its header is longer than {HEADER_LIMIT_BYTES} bytes")
    try:
        with safe_open(path, framework="numpy") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise damaged(path, str(error).removeprefix("Error while deserializing header: ")) from None


def is_pickle(path: Path) -> bool:
    """Whether the file begins like those of ``torch.save``, which are pickles; WeightsError if it cannot be read."""
    with open_weights(path) as file:
        start = file.read(LENGTH_BYTES)
    # The length of a header may begin with the same byte.
    return start.startswith((b"\x80", b"PK\x03\x04")) and int.from_bytes(start, "little") > HEADER_LIMIT_BYTES


def open_weights(path: Path) -> BinaryIO:
    """Open a regular file of acceptable size; WeightsError otherwise."""
    if not path.is_file():
        raise WeightsError(f"no weights file {path}")
    if path.stat().st_size > FILE_LIMIT_BYTES:
        raise WeightsError(f"{path} is larger than {FILE_LIMIT_BYTES >> 30} GiB, too large for weights of ours")
    with errors_as(WeightsError, f"cannot read weights {path}"):
        return path.open("rb")


def read_beside(path: Path, advice: str) -> Any:
    """Read a small JSON file beside weights; WeightsError with ``advice`` if it is none."""
    with open_weights(path) as file:
        text = file.read(HEADER_LIMIT_BYTES)
    try:
        return parse_json(text)
    except ValueError as error:
        raise WeightsError(f"{path} cannot be read ({error}); {advice}") from None


def damaged(path: Path, reason: str) -> WeightsError:
    """Make the error for an invalid safetensors file."""
    return WeightsError(f"{path} is not a safetensors file, or a damaged one ({one_line(reason, 200)}); get it again")
