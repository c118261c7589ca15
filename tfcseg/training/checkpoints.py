"""Save and load checkpoint.pt, from which a training run resumes. It holds data only; no code in it is run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfcseg.errors import OutputError, WeightsError

CHECKPOINT_FORMAT = "tfcseg-checkpoint-2"

_KEYS = {"format", "options", "network", "average", "optimizer", "step", "best"}


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` (all of _KEYS except the format) under a temporary name, then rename; OutputError on failure."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        torch.save({"format": CHECKPOINT_FORMAT, **state}, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {str(error).splitlines()[0]}") from None


def read_checkpoint(
    path: Path, options: Mapping[str, Any], network: Mapping[str, Tensor], device: torch.device
) -> dict[str, Any]:
    """Read a checkpoint; WeightsError if its options or tensors differ from ``options`` and ``network``."""
    state = _load(path, device)
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT or state.keys() != _KEYS:
        raise WeightsError(f"{path} is not a tfcseg checkpoint; train into another folder")
    saved = state["options"]
    other = [f"{name} {saved[name]}, now {value}" for name, value in options.items() if saved.get(name, value) != value]
    if other:
        raise WeightsError(f"{path} was made with other options ({'; '.join(other)}); train into another folder")
    if _shapes(state["network"]) != _shapes(network):
        raise WeightsError(f"{path} belongs to a network of another kind or size; train into another folder")
    return state


def _load(path: Path, device: torch.device) -> Any:
    try:
        # torch.save writes zip archives; anything else would be an old-style pickle.
        if zipfile.is_zipfile(path):
            return torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError):
        pass
    raise WeightsError(f"{path} is not a tfcseg checkpoint, or a damaged one; train into another folder")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
