"""Facts about the machine of a measurement: device, threads, versions."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
import torch

from tfcseg.machine import device_name
from tfcseg.report import model_facts
from tfcseg.weights.loading import LoadedModel


def machine_facts(model: LoadedModel) -> dict[str, Any]:
    """Keyword arguments of a ``Comparison`` for its device, threads and versions."""
    return {
        "tfcseg": version("tfcseg"),
        "model": model_facts(model),
        "device": str(model.device),
        "device_name": device_name(str(model.device)),
        "precision": str(model.precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        },
    }
