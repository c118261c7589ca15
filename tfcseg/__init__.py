"""Steady, fast semantic segmentation of any video (Temporal Feature Correlation, AAAI 2024).

import tfcseg

report = tfcseg.run("street.mp4", "street")

for frame in tfcseg.segment("street.mp4"):
    frame.labels  # (H, W) uint8 class indices
    frame.mask("person")
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from tfcseg.errors import (
        BatchError,
        DataError,
        FinishedError,
        InputError,
        Interrupted,
        LostConnection,
        OutputError,
        TfcsegError,
        UsageError,
        WeightsError,
    )
    from tfcseg.inference.segment import segment
    from tfcseg.inference.segmented import SegmentedFrame
    from tfcseg.labels.label_sets import LabelSet
    from tfcseg.media.frames import Frame, VideoInfo
    from tfcseg.media.reader import probe, read_frames
    from tfcseg.model.options import InferenceOptions
    from tfcseg.report.schema import Report
    from tfcseg.runs.options import ResultOptions
    from tfcseg.runs.pipeline import run
    from tfcseg.runs.steady import steady
    from tfcseg.weights.loading import LoadedModel, load_model
    from tfcseg.weights.model_card import ModelCard
    from tfcseg.weights.registry import list_models

# Silent by default, as libraries should be.
logging.getLogger(__name__).addHandler(logging.NullHandler())
# OpenCV would print its own source lines for damaged images; our errors name the file.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

_NAMES = {
    "errors": "BatchError DataError FinishedError InputError Interrupted LostConnection OutputError TfcsegError "
    "UsageError WeightsError",
    "model.options": "InferenceOptions",
    "inference.segment": "segment",
    "inference.segmented": "SegmentedFrame",
    "labels.label_sets": "LabelSet",
    "media.frames": "Frame VideoInfo",
    "media.reader": "probe read_frames",
    "report.schema": "Report",
    "runs.pipeline": "run",
    "runs.options": "ResultOptions",
    "runs.steady": "steady",
    "weights.loading": "LoadedModel load_model",
    "weights.model_card": "ModelCard",
    "weights.registry": "list_models",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "BatchError",
    "DataError",
    "FinishedError",
    "Frame",
    "InferenceOptions",
    "InputError",
    "Interrupted",
    "LabelSet",
    "LoadedModel",
    "LostConnection",
    "ModelCard",
    "OutputError",
    "Report",
    "ResultOptions",
    "SegmentedFrame",
    "TfcsegError",
    "UsageError",
    "VideoInfo",
    "WeightsError",
    "__version__",
    "list_models",
    "load_model",
    "probe",
    "read_frames",
    "run",
    "segment",
    "steady",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the command line can answer ``--help`` without loading torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("tfcseg")
    if name not in _HOMES:
        raise AttributeError(f"module 'tfcseg' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tfcseg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, including those not imported yet, for completion in interpreters."""
    return sorted({*globals(), *__all__})
