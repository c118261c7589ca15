"""Save and load the carry-over of keyframes without loss."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tfcseg.errors import OutputError
from tfcseg.files import replace_atomically
from tfcseg.model.carry_over import Carried
from tfcseg.model.evidence import CarryOver, SectionEnd, WeightedLogits


def save_carried(path: Path, carried: CarryOver) -> None:
    """Write ``carried`` to ``path``; raise OutputError if that fails."""
    # float32 represents all values of the half precisions, which NumPy lacks.
    arrays = {name: tensor.float().cpu().numpy() for name, tensor in carried._asdict().items()}
    with replace_atomically(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def load_carried(path: Path) -> CarryOver:
    """Load what `save_carried` wrote, as float32 on the CPU; raise OutputError if it is missing or damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            kind = next(each for each in (SectionEnd, WeightedLogits, Carried) if {*each._fields} <= {*arrays.files})
            return kind(*(_restored(arrays[name]) for name in kind._fields))
    except (OSError, ValueError, StopIteration, EOFError, zipfile.BadZipFile) as error:
        raise OutputError(f"cannot read {str(path)!r} ({error}); run again from the start") from error


def _restored(array: Any) -> torch.Tensor:
    if array.ndim != 4 or array.dtype != np.float32:
        raise ValueError(f"an array of {array.dtype} {array.shape}")
    # Keep the network's memory order: sums over channels then round as before.
    return torch.from_numpy(array).contiguous(memory_format=torch.channels_last)
