"""Load a model only when its network is needed; a run that is already finished needs none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import torch

from tfcseg.labels.label_sets import LabelSet
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import (
    LoadedModel,
    find_weights,
    is_ours,
    open_model,
    read_card,
    resolve_device,
    resolve_precision,
)
from tfcseg.weights.model_card import ModelCard


@dataclass(frozen=True, slots=True)
class KnownModel:
    """Facts about a model that is not loaded."""

    card: ModelCard
    device: torch.device
    precision: torch.dtype
    sha256: str

    @property
    def labels(self) -> LabelSet:
        """The model's classes."""
        return self.card.labels


Known: TypeAlias = "LoadedModel | KnownModel"
"""All that determines a model's labels, besides options."""


class ModelOnDemand:
    """A model that is loaded once, when its network is needed; arguments and errors are those of `open_model`."""

    def __init__(
        self, model: str | Path | LoadedModel, device: DeviceOptions = DeviceOptions(), *, allow_network: bool = False
    ) -> None:
        self._model, self._device, self._allow_network = model, device, allow_network

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model, which the first access loads."""
        return open_model(self._model, self._device, allow_network=self._allow_network)

    @cached_property
    def known(self) -> Known:
        """Facts about the model. Only published SegFormers are loaded for that."""
        if isinstance(self._model, LoadedModel) or "loaded" in self.__dict__:
            return self.loaded
        path, sha256 = find_weights(self._model, allow_network=self._allow_network)
        if not is_ours(path):
            return self.loaded
        card, device = read_card(path), resolve_device(self._device.device)
        precision = resolve_precision(self._device.precision, device)
        return KnownModel(card, device, precision, sha256 or hashlib.sha256(path.read_bytes()).hexdigest())


def on_demand(
    model: str | Path | LoadedModel | ModelOnDemand, device: DeviceOptions, *, allow_network: bool = False
) -> ModelOnDemand:
    """Make a `ModelOnDemand` of ``model``, unless it is one."""
    return model if isinstance(model, ModelOnDemand) else ModelOnDemand(model, device, allow_network=allow_network)
