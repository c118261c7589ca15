"""Print results on stdout: JSON for programs, numbers for people."""

from __future__ import annotations

import json
import sys
from typing import Any

NOTHING = "–"
"""Shown instead of a number that was not measured."""


def print_json(content: Any) -> None:
    """Print a result for programs."""
    json.dump(content, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def number(value: object, digits: int = 1, unit: str = "") -> str:
    """Format ``value`` with this many decimals; `NOTHING` if it is not a number."""
    return f"{value:.{digits}f}{unit}" if isinstance(value, int | float) else NOTHING


def percent(share: float | None) -> str:
    """Format a share (0 to 1) as a percentage."""
    return NOTHING if share is None else number(100 * share, 2, " %")
