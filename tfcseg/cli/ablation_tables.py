"""Print the tables of an ablation on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tfcseg.cli.console import plain
from tfcseg.cli.results import NOTHING, number

if TYPE_CHECKING:
    from tfcseg.research.ablation.result import Ablation, RowResult
    from tfcseg.research.ablation.similarity import SimilarityScores

_MARKS = {"agrees": "=", "differs": "≠", "unclear": "~"}


def print_ablation(result: Ablation) -> None:
    """Print our numbers and the paper's in a row per variant, and how well the similarity mask works."""
    console = Console(highlight=False, emoji=False)
    console.print(plain(_conditions(result)), soft_wrap=True)
    console.print(_rows(result))
    console.print("= changed as in the paper, ≠ the other way, ~ one of the two did not change", soft_wrap=True)
    for row in result.rows:
        if row.name == "tfc" and row.similarity is not None:
            console.print()
            console.print(_similarity(row.similarity))


def _rows(result: Ablation) -> Table:
    from tfcseg.research.ablation.paper import SCORES

    table = Table(box=None, padding=(0, 2, 0, 0))
    titles = ("", "mIoU", "VC8", "VC16", "updated\n(%)", "paper\nmIoU", "\nVC8", "\nVC16", "as the\npaper")
    for title in titles:
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for row in result.rows:
        ours = [number(getattr(row, key)) for key in (*SCORES, "updated_fraction")]
        theirs = [number(row.paper.get(key)) for key in SCORES]
        table.add_row(plain(row.title), *ours, *theirs, _marks(row))
    return table


def _similarity(scores: SimilarityScores) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("similarity below")
    for title in ("points (%)", "right (%)", "precision (%)", "recall (%)"):
        table.add_column(title, justify="right")
    for mask in scores.thresholds:
        numbers = (mask.below, mask.accuracy, mask.precision, mask.recall)
        table.add_row(f"{mask.threshold:g}", *map(number, numbers))
    unchanged = None if scores.changed is None else 100 - scores.changed
    table.add_row("nowhere", "0.0", number(unchanged), NOTHING, "0.0")
    return table


def _conditions(result: Ablation) -> str:
    resolution = "×".join(str(side) for side in reversed(result.resolution["network"]))
    threads = f", {result.threads} {'thread' if result.threads == 1 else 'threads'}" if result.device == "cpu" else ""
    options = result.options
    return (
        f"{result.model.name} at {resolution} · {options['correlation']} correlation, threshold "
        f"{options['threshold']:g}, interval {options['keyframe_interval']}, keyframe {options['keyframe_position']} · "
        f"{result.device}, {result.precision}{threads}"
    )


def _marks(row: RowResult) -> str:
    """One mark per score, in order; a blank where there is nothing to compare."""
    from tfcseg.research.ablation.paper import SCORES

    return "".join(_MARKS.get(row.directions.get(key, ""), " ") for key in SCORES)
