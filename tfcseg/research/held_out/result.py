"""What both measurements say of the machine, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from tfcseg.machine import device_name, library_versions
from tfcseg.report import model_facts
from tfcseg.weights.loading import LoadedModel

SCHEMA = 1
"""Of the files; grows when a key changes its meaning or goes."""


def made_by(models: Sequence[LoadedModel]) -> dict[str, Any]:
    """Fields of a result that say what ran, and on what."""
    device = str(models[0].device) if models else "cpu"
    return {
        "schema": SCHEMA,
        "tfcseg": version("tfcseg"),
        "models": tuple(model_facts(model) for model in models),
        "device": device,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
    }
