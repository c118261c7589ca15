"""``tfcseg models``: what is shipped."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from tfcseg.cli import options
from tfcseg.cli.console import plain


def command(as_json: options.Json = False) -> None:
    """List the shipped models: backbone, classes, size and what was measured.

    Example: tfcseg models --json
    """
    from tfcseg.weights.loading import list_models

    facts = [_facts(record) for record in list_models()]
    if as_json:
        json.dump(facts, sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("name", "backbone", "labels", "params", "size", "mIoU", "VC8", "VC16", "licence"):
        table.add_column(
            heading, justify="left" if heading in {"name", "backbone", "licence"} else "right", no_wrap=True
        )
    for model in facts:
        measured = model["measured"]
        table.add_row(
            plain(model["name"] + (" *" if model["is_default"] else "")),
            plain(model["backbone"]),
            str(model["classes"]),
            f"{model['parameters'] / 1e6:.1f}M",
            f"{model['size_bytes'] / 1e6:.1f}MB",
            *(plain(str(measured.get(f"tfc_{name}", "–"))) for name in ("miou", "vc8", "vc16")),
            plain(model["licence"].split(";")[0]),
        )
    console = Console(highlight=False, emoji=False)
    console.print(table)
    console.print("* the default; mIoU and VC in mode tfc, --json says on what data")


def _facts(record: Any) -> dict[str, Any]:
    from tfcseg.weights.loading import count_parameters, read_card

    card = read_card(record.path)
    return {
        "name": record.name,
        "is_default": record.is_default,
        "backbone": card.config.backbone,
        "labels": card.labels.name,
        "classes": len(card.labels),
        "parameters": count_parameters(card.config),
        "size_bytes": record.path.stat().st_size,
        "sha256": record.sha256,
        "licence": card.licence,
        "trained_on": card.trained_on,
        "measured": dict(card.measured),
        "description": card.description,
    }
