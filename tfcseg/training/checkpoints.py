"""What a training run keeps: a running average of the weights, and checkpoint.pt, from which it resumes."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tfcseg.errors import WeightsError
from tfcseg.files import replace_atomically

CHECKPOINT_FORMAT = "tfcseg-checkpoint-2"


class WeightAverage:
    """Exponential moving average of the weights of ``network``, which is validated and saved."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self.weights: dict[str, Tensor] = {name: t.detach().clone() for name, t in network.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after a step. The decay starts small, so that the initial weights are soon forgotten."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, tensor in self._network.state_dict().items():
            if tensor.is_floating_point():
                self.weights[name].lerp_(tensor, 1 - decay)
            else:
                self.weights[name].copy_(tensor)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Give the network the averaged weights inside the block, and its own again afterwards."""
        own = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
        self._network.load_state_dict(self.weights)
        try:
            yield
        finally:
            self._network.load_state_dict(own)


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state``; OutputError on failure."""
    with replace_atomically(path) as partial:
        try:
            torch.save({"format": CHECKPOINT_FORMAT, **state}, partial)
        except RuntimeError as error:  # torch's way to report a full disk
            raise OSError(str(error).splitlines()[0]) from None


def read_checkpoint(
    path: Path, options: Mapping[str, Any], network: Mapping[str, Tensor], device: torch.device
) -> dict[str, Any]:
    """Read a checkpoint, running no code in it.

    Raises WeightsError if its options or tensors differ from ``options`` and ``network``.
    """
    state: Any = None
    with suppress(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError):
        # torch.save writes zip archives; anything else would be an old-style pickle.
        if zipfile.is_zipfile(path):
            state = torch.load(path, map_location=device, weights_only=True)
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise WeightsError(f"{path} is not a tfcseg checkpoint, or a damaged one; train into another folder")
    saved = state["options"]
    other = [f"{name} {saved[name]}, now {value}" for name, value in options.items() if saved.get(name, value) != value]
    if other:
        raise WeightsError(f"{path} was made with other options ({'; '.join(other)}); train into another folder")
    if _shapes(state["network"]) != _shapes(network):
        raise WeightsError(f"{path} belongs to a network of another kind or size; train into another folder")
    return state


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
