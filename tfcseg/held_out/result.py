"""What both measurements say of the machine, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tfcseg.machine import device_name, library_versions
from tfcseg.outputs import replace_atomically
from tfcseg.report import model_facts, to_json
from tfcseg.weights import LoadedModel

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


def result_json(result: object) -> dict[str, Any]:
    """Content of the file of a result."""
    content = to_json(result)
    if not isinstance(content, dict):  # for the type checker: a dataclass becomes an object
        raise TypeError("a result is an object")
    return content


def write_result(path: Path, result: object) -> None:
    """Write a result as JSON; it appears complete or not at all. OutputError if it cannot be written."""
    text = json.dumps(result_json(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replace_atomically(path) as partial:
        # A file name that is no valid UTF-8 reaches us with lone surrogates: as \udcxx they are valid JSON.
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))
