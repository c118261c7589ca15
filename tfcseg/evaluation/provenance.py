"""Provenance of scores: model, options, machine and versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from tfcseg.machine import device_name, library_versions
from tfcseg.report.schema import ModelFacts, OptionFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the scored labels come from; the fields are keys of eval.json."""

    model: ModelFacts | None = None
    """None for labels that another program wrote."""
    options: OptionFacts | None = None
    """As in report.json, with device and precision; None without a model."""
    predictions: str | None = None
    """Folder of labels that another program wrote."""
    label_map: str | None = None
    """File with the label map, or ``built in``; None if nothing was mapped."""
    threads: int | None = None
    """Of the network."""
    tfcseg: str = field(default_factory=lambda: version("tfcseg"))
    versions: Mapping[str, str | None] = field(default_factory=library_versions)

    def to_json(self) -> dict[str, Any]:
        """Entries of eval.json, with the name of the device that did the work."""
        device = "cpu" if self.options is None else self.options.device
        return {**asdict(self), "device_name": device_name(device)}
