"""What ran, on what: the one record of it, which every measurement's result begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tfcseg.machine import device_name, library_versions
from tfcseg.report.schema import ModelFacts, model_facts

if TYPE_CHECKING:
    from tfcseg.weights.loading import LoadedModel

SCHEMA = 1
"""Of the files; grows when a key changes its meaning or goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Program, machine and libraries of a measurement."""

    schema: int = SCHEMA
    tfcseg: str  # version
    device: str
    device_name: str
    threads: int
    versions: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConditions(Conditions):
    """Those of the measurement of one model."""

    model: ModelFacts
    precision: str


def conditions(device: str = "cpu") -> dict[str, Any]:
    """Fields of `Conditions`."""
    import torch

    return {
        "tfcseg": version("tfcseg"),
        "device": device,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
    }


def model_conditions(model: LoadedModel) -> dict[str, Any]:
    """Fields of `ModelConditions`."""
    precision = str(model.precision).removeprefix("torch.")
    return {**conditions(str(model.device)), "model": model_facts(model), "precision": precision}
