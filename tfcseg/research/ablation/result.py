"""What an ablation found, and its JSON. Percentages are 0 to 100, what was not measured is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tfcseg.report.conditions import ModelConditions
from tfcseg.report.schema import ModelFacts
from tfcseg.research.ablation.paper import PAPER, SCORES
from tfcseg.research.ablation.rows import Row
from tfcseg.research.ablation.similarity import SimilarityScores

KIND = "ablation"

Numbers: TypeAlias = Mapping[str, float | None]

DECIMALS = 1
"""Of the paper's numbers. A step that rounds to nothing has no direction."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """Scores of one row, and whether they moved as the paper's did."""

    name: str
    title: str
    builds_on: str | None
    keyframe_interval: int
    threshold: float
    miou: float | None
    miou_all: float | None
    vc8: float | None
    vc16: float | None
    updated_fraction: float | None
    """Mean percentage of points that sparse MSDA computes between keyframes; None without frames between them."""
    similarity: SimilarityScores | None
    paper: Mapping[str, float | None]
    """The paper's numbers by the same keys, as far as it gives them."""
    directions: Mapping[str, str] = field(default_factory=dict)
    """Score -> ``agrees``, ``differs`` or ``unclear`` (one of both did not move)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation(ModelConditions):
    """Everything that the JSON says."""

    kind: str = KIND
    input: Mapping[str, Any]
    without_bce: ModelFacts | None
    options: Mapping[str, Any]
    resolution: Mapping[str, tuple[int, int]]  # (height, width) of the source and of the network's input
    rows: tuple[RowResult, ...]
    is_incomplete: bool  # data was missing
    skipped: Mapping[str, int]  # kind -> how many


def directions(row: Row, scores: Numbers, base: Numbers) -> dict[str, str]:
    """Whether the steps from ``base`` to ``scores`` have the sign of the paper's steps, for scores that it gives."""
    theirs, their_base = PAPER.get(row.name, {}), PAPER.get(row.builds_on or "", {})
    found = {}
    for key in SCORES:
        ours = _sign(scores.get(key), base.get(key))
        wanted = _sign(theirs.get(key), their_base.get(key))
        if ours is not None and wanted is not None:
            found[key] = "agrees" if ours == wanted else "differs" if ours * wanted else "unclear"
    return found


def _sign(number: float | None, base: float | None) -> int | None:
    """-1, 0 or 1: of the difference, rounded to the paper's decimals."""
    if number is None or base is None:
        return None
    step = round(number - base, DECIMALS)
    return (step > 0) - (step < 0)
