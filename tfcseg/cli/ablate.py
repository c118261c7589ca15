"""``tfcseg research ablate``: the paper's ablation table with any model, on any VSPW folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.options import one_of
from tfcseg.cli.results import ResultFile, fail_if_incomplete, measured, print_tables
from tfcseg.evaluation.scope import Scope
from tfcseg.model.options import PAPER_OPTIONS, InferenceOptions
from tfcseg.research.ablation.paper import row_names
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.research.ablation.ablate import Ablation

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
        _print,
        inputs=[root],
        file=file,
        printing=printing,
        unit="videos",
    )
    fail_if_incomplete(result.skipped, is_incomplete=result.is_incomplete, skip_bad=scope.skip_bad)


def _print(result: Ablation) -> None:
    from tfcseg.files import json_object
    from tfcseg.research.tables import ablation_table, similarity_table

    content = json_object(result)
    print_tables(ablation_table([content]))
    if any(row.name == "tfc" and row.similarity is not None for row in result.rows):
        print_tables(f"\n{similarity_table([content])}")
