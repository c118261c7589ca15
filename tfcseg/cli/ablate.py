"""``tfcseg ablate``: the paper's ablation table with any model, on any VSPW folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast

import typer

from tfcseg.cli import options
from tfcseg.cli.ablation_tables import print_ablation
from tfcseg.cli.progress import stage_progress
from tfcseg.cli.result_file import claimed_file, show_result
from tfcseg.cli.scores import fail_if_incomplete
from tfcseg.cli.values import list_of, one_of
from tfcseg.model.config import CORRELATIONS, KEYFRAME_POSITIONS

_SETTINGS = ("paper", "model")
_BY_SETTINGS = "as --settings says"


def _row_names() -> list[str]:
    from tfcseg.research.ablation.paper import row_names

    return row_names()


def command(
    context: typer.Context,
    root: Annotated[
        Path,
        typer.Argument(help="Folder with data/, <split>.txt and label_num_dic_final.json.", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the result as JSON.", show_default=False)
    ] = None,
    model: options.Model = "default",
    rows: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows to compute, e.g. [bold]image,reuse,tfc[/].",
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
            help="Whose correlation, interval, keyframe position and threshold: [bold]paper[/] or [bold]model[/].",
            callback=one_of("settings", _SETTINGS),
            autocompletion=options.completing(lambda: _SETTINGS),
        ),
    ] = "paper",
    correlation: Annotated[
        str | None,
        typer.Option(
            help="[bold]paper[/] or [bold]aligned[/].",
            show_default=_BY_SETTINGS,
            callback=one_of("correlation", CORRELATIONS),
            autocompletion=options.completing(lambda: CORRELATIONS),
        ),
    ] = None,
    keyframe_interval: Annotated[
        int | None, typer.Option(help="Every n-th frame is a keyframe.", show_default=_BY_SETTINGS)
    ] = None,
    keyframe_position: Annotated[
        str | None,
        typer.Option(
            help="[bold]first[/] or [bold]middle[/] of the interval.",
            show_default=_BY_SETTINGS,
            callback=one_of("keyframe position", KEYFRAME_POSITIONS),
            autocompletion=options.completing(lambda: KEYFRAME_POSITIONS),
        ),
    ] = None,
    keyframe_carry: Annotated[
        float | None,
        typer.Option(help="Keyframes of row carry keep so much of the one before.", show_default=_BY_SETTINGS),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Points less similar are recomputed.", show_default=_BY_SETTINGS)
    ] = None,
    size: options.Size = None,
    split: options.Split = "val",
    protocol: options.Protocol = "vspw",
    label_map: options.LabelMap = None,
    limit: options.Limit = None,
    skip_bad: options.SkipBad = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.ResultOnly = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Leave out or replace the steps of TFC one by one: mIoU, VC and recomputed points, beside the paper's numbers.

    Also says how well the similarity tells what changed.

    Example: tfcseg ablate VSPW_480p --rows image,reuse,tfc -o ablation.json
    """
    from tfcseg.comparison import Scope
    from tfcseg.metrics.scores import VcProtocol
    from tfcseg.report import write_json
    from tfcseg.research.ablation.ablate import Settings, ablate

    given = {name: value for name, value in options.network_options(context).items() if value is not None}
    base = Settings() if settings == "paper" else Settings(None, None, None, None, None)
    with claimed_file(output, [root], overwrite=overwrite):
        with stage_progress("videos", shown=not quiet) as on_progress:
            result = ablate(
                root,
                model,
                replace(base, **given),
                rows=rows or None,
                without_bce=without_bce,
                scope=Scope(split, cast(VcProtocol, protocol), label_map, limit, skip_bad),
                device=device,
                precision=precision,
                on_progress=on_progress,
            )
        if output is not None:
            write_json(output, result)
    show_result(result, print_ablation, output, as_json=as_json, quiet=quiet)
    fail_if_incomplete(result.skipped, is_incomplete=result.is_incomplete, skip_bad=skip_bad)
