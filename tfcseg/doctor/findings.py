"""A finding: one line for people, facts for programs, and advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA = 1

Status = Literal["ok", "note", "broken"]
"""``note``: something optional is missing or slower than it could be. ``broken``: something needed does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    status: Status
    found: str
    advice: str | None = None
    """Advice for the user; None if nothing needs to be done."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs, in JSON types."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, in order."""

    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """Findings without which tfcseg does not work."""
        return tuple(finding for finding in self.findings if finding.status == "broken")

    def to_json(self) -> dict[str, Any]:
        """Content of ``tfcseg doctor --json``."""
        return {
            "schema": SCHEMA,
            "is_healthy": not self.broken,
            "findings": [asdict(finding) for finding in self.findings],
        }
