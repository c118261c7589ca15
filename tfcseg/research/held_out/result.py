"""What both measurements on held-out data say of the machine and the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfcseg.report.conditions import Conditions, conditions
from tfcseg.report.schema import ModelFacts, model_facts
from tfcseg.weights.loading import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutConditions(Conditions):
    """Those of the measurement of several models."""

    models: tuple[ModelFacts, ...]


def made_by(models: Sequence[LoadedModel]) -> dict[str, Any]:
    """Fields of `HeldOutConditions`."""
    device = str(models[0].device) if models else "cpu"
    return {**conditions(device), "models": tuple(model_facts(model) for model in models)}
