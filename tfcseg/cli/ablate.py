"""``tfcseg research ablate``: the paper's ablation table with any model, on any VSPW folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from tfcseg.cli import options
from tfcseg.cli.ablation_tables import print_ablation
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.progress import progress
from tfcseg.cli.result_file import claimed_file, show_result
from tfcseg.cli.scores import fail_if_incomplete
from tfcseg.cli.values import list_of, one_of
from tfcseg.model.options import PAPER_OPTIONS, InferenceOptions
from tfcseg.weights.device import DeviceOptions

_SETTINGS = ("paper", "model")
_BY_SETTINGS = "as --settings says"


def _row_names() -> list[str]:
    from tfcseg.research.ablation.paper import row_names

    return row_names()


@grouped
def command(
    context: typer.Context,
    *,
    root: Annotated[
        Path,
        typer.Argument(help="Folder with data/, <split>.txt and label_num_dic_final.json.", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the result as JSON.", show_default=False)
    ] = None,
    model: options.Model = "default",
    allow_network: options.AllowNetwork = False,
    rows: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows to compute, e.g. image,reuse,tfc.",
            show_default="all",
            callback=list_of("row", _row_names),
            autocompletion=options.completing(_row_names),
        ),
    ] = None,
    without_bce: Annotated[
        str | None,
        typer.Option(help="Weights trained without L_bce, for a row of their own.", show_default=False),
    ] = None,
    settings: Annotated[
        str,
        typer.Option(
            help="Whose correlation, interval, keyframe position and threshold: paper or model.",
            callback=one_of("settings", _SETTINGS),
            autocompletion=options.completing(lambda: _SETTINGS),
        ),
    ] = "paper",
    inference: Annotated[InferenceOptions, Without("mode", "latency", "compile", default_text=_BY_SETTINGS)],
    split: options.Split = "val",
    protocol: options.Protocol = "vspw",
    label_map: options.LabelMap = None,
    limit: options.Limit = None,
    skip_bad: options.SkipBad = False,
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.ResultOnly = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Leave out or replace the steps of TFC one by one.

    Prints mIoU, VC and updated points beside the paper's numbers, and how well the similarity predicts changes.

    Example: tfcseg research ablate VSPW_480p --rows image,tfc -o ablation.json
    """
    from tfcseg.comparison import Scope
    from tfcseg.metrics.scores import VcProtocol
    from tfcseg.report import write_json
    from tfcseg.research.ablation.ablate import ablate

    base = PAPER_OPTIONS if settings == "paper" else InferenceOptions()
    with claimed_file(output, [root], overwrite=overwrite):
        with progress(unit="videos", shown=not quiet) as on_progress:
            result = ablate(
                root,
                model,
                inference.completed_by(base),
                rows=rows or None,
                without_bce=without_bce,
                scope=Scope(split, cast(VcProtocol, protocol), label_map, limit, skip_bad),
                device=device,
                on_progress=on_progress,
            )
        if output is not None:
            write_json(output, result)
    show_result(result, print_ablation, output, as_json=as_json, quiet=quiet)
    fail_if_incomplete(result.skipped, is_incomplete=result.is_incomplete, skip_bad=skip_bad)
