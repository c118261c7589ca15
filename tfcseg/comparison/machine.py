"""Where a measurement was made: device, threads and versions."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from tfcseg.report import model_facts
from tfcseg.weights import LoadedModel


def machine_facts(model: LoadedModel) -> dict[str, Any]:
    """Keyword arguments of a ``Comparison`` that say what ran, and on what."""
    return {
        "tfcseg": version("tfcseg"),
        "model": model_facts(model),
        "device": str(model.device),
        "device_name": _device_name(model.device),
        "precision": str(model.precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        },
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
