"""``tfcseg eval``: score a model, or another program's masks, on a VSPW folder."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.console import fail_if_incomplete, new_table, print_json, print_results, print_warning, progress
from tfcseg.cli.groups import Without, grouped, names_of
from tfcseg.errors import OutputError, UsageError
from tfcseg.evaluation.scope import Scope
from tfcseg.files import claimed_files
from tfcseg.model.options import InferenceOptions
from tfcseg.report.html import shown_number as number
from tfcseg.weights.device import DeviceOptions
from tfcseg.workers import WorkerOptions

if TYPE_CHECKING:
    from tfcseg.evaluation.predictions import Predictions
    from tfcseg.evaluation.result import Evaluation
    from tfcseg.evaluation.vspw import VspwDataset

_MODEL_OPTIONS = ("model", *names_of(InferenceOptions), *names_of(DeviceOptions), "label_map")
_NOTES_SHOWN = 10

GivenMasks = Annotated[
    Path | None,
    typer.Option(
        help="Score these masks instead of a model: DIR/<video>/<frame>.png, value = class index, 255 = none. "
        "DIR/<video> may also be the folder of a run, with masks/ or labels.mkv."
    ),
]
SaveMasks = Annotated[Path | None, typer.Option(help="Write the scored masks, in the layout of --predictions.")]
Output = Annotated[Path | None, options.output_to("Write eval.json, eval.html, per_class.csv, per_video.csv.")]


@grouped
def command(
    context: typer.Context,
    *,
    root: options.VspwFolder,
    predictions: GivenMasks = None,
    choice: options.ModelChoice,
    inference: Annotated[InferenceOptions, Without("latency")],
    scope: Scope,
    flow_consistency: options.MeasureFlowConsistency = True,
    save_masks: SaveMasks = None,
    output: Output = None,
    device: DeviceOptions,
    workers: WorkerOptions,
    overwrite: options.Overwrite = False,
    printing: options.Printing,
) -> None:
    """Score a model, or a program's masks, on a VSPW folder.

    Scores: mIoU, wIoU, video consistency (VC), flow consistency, speed.

    Exit code 1 if data was missing, unless --skip-bad is given.

    Example: tfcseg eval VSPW_480p -o scores
    """
    from tfcseg.evaluation.evaluate import evaluate
    from tfcseg.evaluation.result import RESULT_FILES, write_evaluation

    if predictions is not None:
        why = "changes nothing: --predictions are scored as they are, in the data set's classes; leave it out"
        options.refuse_given(context, _MODEL_OPTIONS, why)
    inputs = [root] if predictions is None else [root, predictions]
    with ExitStack() as stack:
        if output is not None:
            stack.enter_context(claimed_files(output, RESULT_FILES, inputs=inputs, overwrite=overwrite))
        if save_masks is not None:
            _check_masks_folder(save_masks, [root / "data", *inputs[1:]], overwrite=overwrite)
        source = (
            partial(_model_source, choice.model, device, inference, scope.label_map)
            if predictions is None
            else partial(_prediction_source, predictions)
        )
        on_progress = stack.enter_context(progress(unit="videos", shown=not printing.quiet))
        result = evaluate(
            root,
            source,
            scope,
            measure_flow_consistency=flow_consistency,
            save_masks=save_masks,
            workers=workers,
            uses_gpu=device.may_use_gpu,
            on_done=partial(on_progress, "scoring"),
        )
        if output is not None:
            write_evaluation(output, result)
    _show(result, root, printing)
    fail_if_incomplete(result.skipped_by_kind, is_incomplete=result.is_incomplete, skip_bad=scope.skip_bad)


def _show(result: Evaluation, root: Path, printing: options.Printing) -> None:
    if not printing.quiet:
        for skip in result.skipped[:_NOTES_SHOWN]:
            where = skip.video if skip.frame is None else f"{skip.video}/{skip.frame}"
            print_warning(f"{skip.kind}: {where}: {skip.reason}")
        if len(result.skipped) > _NOTES_SHOWN:
            print_warning(f"{len(result.skipped) - _NOTES_SHOWN} more like this; --json and eval.json list them all")
    if printing.as_json:
        print_json(result.to_json())
    else:
        _print_evaluation(result, root.resolve().name)


def _prediction_source(folder: Path, dataset: VspwDataset) -> Predictions:
    from tfcseg.evaluation.predictions import PredictionFolder

    return PredictionFolder(folder, dataset.labels).scored()


def _model_source(
    name: str, device: DeviceOptions, inference: InferenceOptions, label_map: Path | None, dataset: VspwDataset
) -> Predictions:
    from tfcseg.evaluation.model_source import ModelPredictions
    from tfcseg.inference.options import checked_options
    from tfcseg.weights.loading import open_model

    model = open_model(name, device)
    return ModelPredictions(model, checked_options(model, inference)).scored_on(dataset, label_map)


def _check_masks_folder(folder: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse a mask folder that is an input or not empty."""
    place = folder.resolve()
    for path in inputs:
        if path.resolve() in (place, *place.parents):
            raise UsageError(f"--save-masks {str(folder)!r} is inside the input {str(path)!r}; choose another folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputError(f"{str(folder)!r} is not empty; use --overwrite or choose another folder")


def _print_evaluation(result: Evaluation, name: str) -> None:
    """Print the scores of data set ``name``. VC is shown with the mIoU, since it means little without it."""
    table = new_table(["", "predictable\nclasses", "all\nclasses"])
    table.add_row("mIoU", number(result.miou, 2), number(result.miou_all, 2))
    table.add_row("wIoU", number(result.wiou, 2), number(result.wiou_all, 2))
    table.add_row("pixel accuracy", number(result.pixel_accuracy, 2), number(result.pixel_accuracy_all, 2))
    table.add_row("classes counted", str(result.classes_counted), str(result.classes_counted_all))
    table.add_row()
    table.add_row("", "[bold]8 frames[/]", "[bold]16 frames[/]")
    table.add_row(f"VC at mIoU {number(result.miou, 2)}", number(result.vc8, 2), number(result.vc16, 2))
    table.add_row("windows counted", *(str(windows.vc.count) for windows in result.windows.values()))
    table.add_row("windows dropped", *(str(windows.dropped) for windows in result.windows.values()))
    table.add_row()
    table.add_row("flow consistency along optical flow", number(result.flow_consistency, 2))
    table.add_row("label change per frame", number(result.label_change, 2))
    table.add_row("videos scored", str(result.videos))
    table.add_row("frames scored", str(result.frames))
    for kind, count in result.skipped_by_kind.items():
        table.add_row(f"left out: {kind}", str(count))
    table.add_row("fps end to end", number(result.speed.fps))
    table.add_row("fps model only", number(result.speed.model_fps))
    print_results(f"{name} · {result.split} · {result.mode} · protocol {result.protocol}", table)
