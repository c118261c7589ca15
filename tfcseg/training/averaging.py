"""A running average of the weights, which is validated and saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of the weights of ``network``."""

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
