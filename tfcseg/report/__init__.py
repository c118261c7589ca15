"""Reports of a run: report.json for programs, frames.csv for tables."""

from tfcseg.report.json_file import json_object, to_json, write_json
from tfcseg.report.schema import (
    SCHEMA,
    ClassFacts,
    ConfidenceFacts,
    InputFacts,
    ModelFacts,
    OptionFacts,
    Report,
    SpeedFacts,
    StabilityFacts,
    SteadyFacts,
    model_facts,
)
from tfcseg.report.tables import FrameRow, FrameTable, columns_for

__all__ = [
    "SCHEMA",
    "ClassFacts",
    "ConfidenceFacts",
    "FrameRow",
    "FrameTable",
    "InputFacts",
    "ModelFacts",
    "OptionFacts",
    "Report",
    "SpeedFacts",
    "StabilityFacts",
    "SteadyFacts",
    "columns_for",
    "json_object",
    "model_facts",
    "to_json",
    "write_json",
]
