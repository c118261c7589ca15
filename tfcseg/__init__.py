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

if TYPE_CHECKING:  # "as" tells type checkers that a name is for users
    __version__: str

    from tfcseg.errors import BatchError as BatchError
    from tfcseg.errors import DataError as DataError
    from tfcseg.errors import FinishedError as FinishedError
    from tfcseg.errors import InputError as InputError
    from tfcseg.errors import Interrupted as Interrupted
    from tfcseg.errors import LostConnection as LostConnection
    from tfcseg.errors import OutputError as OutputError
    from tfcseg.errors import TfcsegError as TfcsegError
    from tfcseg.errors import UsageError as UsageError
    from tfcseg.errors import WeightsError as WeightsError
    from tfcseg.inference.segment import segment as segment
    from tfcseg.inference.segmented import SegmentedFrame as SegmentedFrame
    from tfcseg.labels.label_sets import LabelSet as LabelSet
    from tfcseg.media.frames import Frame as Frame
    from tfcseg.media.frames import VideoInfo as VideoInfo
    from tfcseg.media.reader import probe as probe
    from tfcseg.media.reader import read_frames as read_frames
    from tfcseg.model.options import InferenceOptions as InferenceOptions
    from tfcseg.report.schema import Report as Report
    from tfcseg.runs.options import ResultOptions as ResultOptions
    from tfcseg.runs.pipeline import run as run
    from tfcseg.runs.pipeline import steady as steady
    from tfcseg.weights.loading import LoadedModel as LoadedModel
    from tfcseg.weights.loading import load_model as load_model
    from tfcseg.weights.model_card import ModelCard as ModelCard
    from tfcseg.weights.registry import list_models as list_models

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
    "runs.pipeline": "run steady",
    "runs.options": "ResultOptions",
    "weights.loading": "LoadedModel load_model",
    "weights.model_card": "ModelCard",
    "weights.registry": "list_models",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = ["__version__", *_HOMES]


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
