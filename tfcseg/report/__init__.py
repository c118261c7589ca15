"""Reports of a run: report.json for programs, frames.csv for tables."""

from tfcseg.report.schema import (
    SCHEMA,
    ClassFacts,
    InputFacts,
    ModelFacts,
    OptionFacts,
    Report,
    SpeedFacts,
    StabilityFacts,
    model_facts,
    to_json,
    write_json,
)
from tfcseg.report.tables import COLUMNS, FrameRow, FrameTable

__all__ = [
    "COLUMNS",
    "SCHEMA",
    "ClassFacts",
    "FrameRow",
    "FrameTable",
    "InputFacts",
    "ModelFacts",
    "OptionFacts",
    "Report",
    "SpeedFacts",
    "StabilityFacts",
    "model_facts",
    "to_json",
    "write_json",
]
