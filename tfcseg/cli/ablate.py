"""``tfcseg research ablate``: the paper's ablation table with any model, on any VSPW folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tfcseg.cli import options
from tfcseg.cli.console import plain
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.options import one_of
from tfcseg.cli.results import (
    ResultFile,
    device_of,
    fail_if_incomplete,
    measured,
    new_table,
    number,
    print_results,
    size_of,
)
from tfcseg.evaluation.scope import Scope
from tfcseg.model.options import PAPER_OPTIONS, InferenceOptions
from tfcseg.report.html import NOTHING
from tfcseg.research.ablation.paper import SCORES, row_names
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.research.ablation.ablate import Ablation
    from tfcseg.research.ablation.similarity import SimilarityScores

_MARKS = {"agrees": "=", "differs": "≠", "unclear": "~"}
_SETTINGS = ("paper", "model")
_BY_SETTINGS = "as --settings says"


Rows = Annotated[
    list[str] | None, options.some_of("row", row_names, "Rows to compute, e.g. image,reuse,tfc.", default="all")
]
WithoutBce = Annotated[str | None, typer.Option(help="Weights trained without L_bce, for an extra row.")]
Settings = Annotated[
    str,
    typer.Option(
        help="Take correlation, interval, keyframe position and threshold from the paper or the model.",
        callback=one_of("settings", _SETTINGS),
        autocompletion=options.completing(_SETTINGS),
    ),
]


@grouped
def command(
    *,
    root: options.VspwFolder,
    choice: options.ModelChoice,
    rows: Rows = None,
    without_bce: WithoutBce = None,
    settings: Settings = "paper",
    inference: Annotated[InferenceOptions, Without("mode", "latency", default_text=_BY_SETTINGS)],
    scope: Scope,
    device: DeviceOptions,
    file: ResultFile,
    printing: options.Printing,
) -> None:
    """Leave out or replace the steps of TFC one by one.

    Prints mIoU, VC and updated points beside the paper's numbers, and how well the similarity predicts changes.

    Example: tfcseg research ablate VSPW_480p --rows image,tfc -o ablation.json
    """
    from tfcseg.research.ablation.ablate import ablate

    base = PAPER_OPTIONS if settings == "paper" else InferenceOptions()
    result = measured(
        lambda on_progress: ablate(
            root,
            choice.model,
            inference.completed_by(base),
            rows=rows or None,
            without_bce=without_bce,
            scope=scope,
            device=device,
            on_progress=on_progress,
        ),
        _print_ablation,
        inputs=[root],
        file=file,
        printing=printing,
        unit="videos",
    )
    fail_if_incomplete(result.skipped, is_incomplete=result.is_incomplete, skip_bad=scope.skip_bad)


def _print_ablation(result: Ablation) -> None:
    """Print our numbers and the paper's in a row per variant, and how well the similarity mask works."""
    similarity = [row.similarity for row in result.rows if row.name == "tfc" and row.similarity is not None]
    print_results(
        _conditions(result),
        _rows(result),
        "= changed as in the paper, ≠ the other way, ~ one of the two did not change",
        *(part for scores in similarity for part in ("", _similarity(scores))),
    )


def _rows(result: Ablation) -> Table:
    titles = ("", "mIoU", "VC8", "VC16", "updated\n(%)", "paper\nmIoU", "\nVC8", "\nVC16", "as the\npaper")
    table = new_table(titles)
    for row in result.rows:
        ours = [number(getattr(row, key)) for key in (*SCORES, "updated_fraction")]
        theirs = [number(row.paper.get(key)) for key in SCORES]
        marks = (_MARKS.get(row.directions.get(key, ""), " ") for key in SCORES)  # blank: nothing to compare
        table.add_row(plain(row.title), *ours, *theirs, "".join(marks))
    return table


def _similarity(scores: SimilarityScores) -> Table:
    table = new_table(["similarity below", "points (%)", "right (%)", "precision (%)", "recall (%)"])
    for mask in scores.thresholds:
        numbers = (mask.below, mask.accuracy, mask.precision, mask.recall)
        table.add_row(f"{mask.threshold:g}", *map(number, numbers))
    unchanged = None if scores.changed is None else 100 - scores.changed
    table.add_row("nowhere", "0.0", number(unchanged), NOTHING, "0.0")
    return table


def _conditions(result: Ablation) -> str:
    options, size = result.options, size_of(result.resolution["network"])
    return (
        f"{result.model.name} at {size} · {options['correlation']} correlation, threshold {options['threshold']:g}, "
        f"interval {options['keyframe_interval']}, keyframe {options['keyframe_position']} · {device_of(result)}"
    )
