"""Result of an ablation and its JSON. Percentages are 0 to 100; None stands for what was not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tfcseg.report.schema import ModelConditions, ModelFacts
from tfcseg.research.ablation.paper import PAPER, SCORES
from tfcseg.research.ablation.rows import Row
from tfcseg.research.ablation.similarity import SimilarityScores

KIND = "ablation"

Numbers: TypeAlias = Mapping[str, float | None]

DECIMALS = 1
"""Decimals of the paper's numbers. A change that rounds to 0 has no direction."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """Scores of a row, and whether they changed as in the paper."""

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
    """Mean percentage of points that sparse MSDA updates between keyframes; None without frames between them."""
    similarity: SimilarityScores | None
    paper: Mapping[str, float | None]
    """The paper's numbers by the same keys, if it states them."""
    directions: Mapping[str, str] = field(default_factory=dict)
    """Score -> ``agrees``, ``differs`` or ``unclear`` (one of the two did not change)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation(ModelConditions):
    """Content of the JSON file."""

    kind: str = KIND
    input: Mapping[str, Any]
    without_bce: ModelFacts | None
    options: Mapping[str, Any]
    resolution: Mapping[str, tuple[int, int]]  # (height, width) of the source and of the network's input
    rows: tuple[RowResult, ...]
    is_incomplete: bool  # data was missing
    skipped: Mapping[str, int]  # kind -> how many


def directions(row: Row, scores: Numbers, base: Numbers) -> dict[str, str]:
    """Compare the signs of the changes from ``base`` to ``scores`` with the paper's, for the scores that it states."""
    theirs, their_base = PAPER.get(row.name, {}), PAPER.get(row.builds_on or "", {})
    found = {}
    for key in SCORES:
        ours = _sign(scores.get(key), base.get(key))
        wanted = _sign(theirs.get(key), their_base.get(key))
        if ours is not None and wanted is not None:
            found[key] = "agrees" if ours == wanted else "differs" if ours * wanted else "unclear"
    return found


def _sign(number: float | None, base: float | None) -> int | None:
    """Sign of the difference, rounded to the paper's decimals: -1, 0 or 1."""
    if number is None or base is None:
        return None
    step = round(number - base, DECIMALS)
    return (step > 0) - (step < 0)
