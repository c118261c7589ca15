"""Conditions of measurements on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tfcseg.report.conditions import Conditions, conditions
from tfcseg.report.schema import ModelFacts, model_facts
from tfcseg.weights.loading import LoadedModel

OnProgress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with the current step, items done, and items in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutConditions(Conditions):
    """Machine and models of a measurement."""

    models: tuple[ModelFacts, ...]


def made_by(models: Sequence[LoadedModel]) -> dict[str, Any]:
    """Keyword arguments of `HeldOutConditions`."""
    device = str(models[0].device) if models else "cpu"
    return {**conditions(device), "models": tuple(model_facts(model) for model in models)}
