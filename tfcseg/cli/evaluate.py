"""``tfcseg eval``: score a model, or another program's masks, on a VSPW folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfcseg.cli import options
from tfcseg.cli.console import print_warning
from tfcseg.cli.groups import Without, grouped, names_of
from tfcseg.cli.progress import progress
from tfcseg.cli.results import print_json
from tfcseg.cli.scores import fail_if_incomplete, print_evaluation
from tfcseg.errors import OutputError, TfcsegError, UsageError
from tfcseg.evaluation.scope import Scope
from tfcseg.model.options import InferenceOptions
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tfcseg.evaluation.predictions import PredictionWriter
    from tfcseg.evaluation.result import Evaluation, VideoScore
    from tfcseg.evaluation.shards import Shard
    from tfcseg.evaluation.vspw import VspwDataset, VspwFrame, VspwVideo

_MODEL_OPTIONS = ("model", *names_of(InferenceOptions), *names_of(DeviceOptions), "label_map")
_NOTES_SHOWN = 10


Root = Annotated[
    Path,
    typer.Argument(help="Folder with data/, <split>.txt and label_num_dic_final.json.", show_default=False),
]
Predictions = Annotated[
    Path | None,
    typer.Option(
        help="Score these masks instead of a model: DIR/<video>/<frame>.png or DIR/<video>/labels.mkv, "
        "value = class index, 255 = none.",
        show_default=False,
    ),
]
SaveMasks = Annotated[
    Path | None, typer.Option(help="Write the scored masks, in the layout of --predictions.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Write eval.json, eval.html, per_class.csv, per_video.csv.", show_default=False
    ),
]


@grouped
def command(
    context: typer.Context,
    *,
    root: Root,
    predictions: Predictions = None,
    choice: options.ModelChoice,
    inference: Annotated[InferenceOptions, Without("latency", "compile")],
    scope: Scope,
    flow_consistency: options.MeasureFlowConsistency = True,
    save_masks: SaveMasks = None,
    output: Output = None,
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    printing: options.Printing,
) -> None:
    """Score a model, or a program's masks, on a VSPW folder.

    Scores: mIoU, wIoU, video consistency (VC), flow consistency, speed.

    Under torchrun, processes share the videos. Exit code 1 if data was missing, unless --skip-bad is given.

    Example: tfcseg eval VSPW_480p -o scores
    """
    from tfcseg.evaluation.evaluate import evaluate
    from tfcseg.evaluation.predictions import PredictionWriter
    from tfcseg.evaluation.result import RESULT_FILES, write_evaluation
    from tfcseg.evaluation.shards import torchrun_shard
    from tfcseg.evaluation.vspw import open_vspw
    from tfcseg.files import claimed_files

    if predictions is not None:
        _refuse_model_options(context)
    inputs = [root] if predictions is None else [root, predictions]
    with torchrun_shard() as shard, ExitStack() as stack:
        is_first = shard.rank == 0
        if is_first and output is not None:
            stack.enter_context(claimed_files(output, RESULT_FILES, inputs=inputs, overwrite=overwrite))
        if is_first and save_masks is not None:
            _check_masks_folder(save_masks, [root / "data", *inputs[1:]], overwrite=overwrite)
        with _only_first_fails(shard):
            dataset = open_vspw(root, scope.split)
            folder = _prediction_source(predictions)
        place = replace(device, device=_device_of(shard, device.device))
        source = folder or _model_source(choice.model, place, inference, dataset, scope.label_map)
        writer = PredictionWriter(save_masks) if save_masks is not None else None
        mine = len(dataset.videos[: scope.limit][shard.rank :: shard.count])
        source |= stack.enter_context(_progress(mine, writer, shown=is_first and not printing.quiet))
        with _only_first_fails(shard):
            result = evaluate(root, scope=scope, measure_flow_consistency=flow_consistency, shard=shard, **source)
        if is_first and output is not None:
            write_evaluation(output, result)
    if not is_first:
        raise typer.Exit(1 if result.is_incomplete and not scope.skip_bad else 0)
    _show(result, root, printing)
    fail_if_incomplete(result.skipped_by_kind, is_incomplete=result.is_incomplete, skip_bad=scope.skip_bad)


def _show(result: Evaluation, root: Path, printing: options.Printing) -> None:
    if not printing.quiet:
        _print_notes(result)
    if printing.as_json:
        print_json(result.to_json())
    else:
        print_evaluation(result, root.resolve().name)


def _refuse_model_options(context: typer.Context) -> None:
    for name in _MODEL_OPTIONS:
        if options.was_given(context, name):
            option = name.replace("_", "-")
            raise UsageError(f"--predictions are scored unchanged, in the data set's classes; leave out --{option}")


def _prediction_source(folder: Path | None) -> dict[str, Any]:
    """Keyword arguments of `evaluate` for predictions in files; none without a folder."""
    from tfcseg.evaluation.predictions import PredictionFolder

    if folder is None:
        return {}
    source = PredictionFolder(folder)
    return {"predict": source, "provenance": source.provenance()}


def _model_source(
    name: str, device: DeviceOptions, inference: InferenceOptions, dataset: VspwDataset, label_map: Path | None
) -> dict[str, Any]:
    """Keyword arguments of `evaluate` for a model's predictions."""
    from tfcseg.evaluation.model_source import ModelPredictions
    from tfcseg.inference.options import checked_options
    from tfcseg.weights.loading import open_model

    model = open_model(name, device)
    return ModelPredictions(model, checked_options(model, inference)).scored_on(dataset, label_map)


def _device_of(shard: Shard, device: str) -> str:
    """The GPU of this process. Processes on one machine share its GPUs."""
    if device != "auto" or shard.count == 1:
        return device
    import torch

    gpus = torch.cuda.device_count()
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % gpus}" if gpus else "cpu"


def _check_masks_folder(folder: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse a mask folder that is an input or not empty."""
    place = folder.resolve()
    for path in inputs:
        if path.resolve() in (place, *place.parents):
            raise UsageError(f"--save-masks {str(folder)!r} is inside the input {str(path)!r}; choose another folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputError(f"{str(folder)!r} is not empty; use --overwrite or choose another folder")


@contextmanager
def _only_first_fails(shard: Shard) -> Iterator[None]:
    """Report errors, which all processes get alike, in the first process only."""
    try:
        yield
    except TfcsegError as error:
        if shard.rank == 0:
            raise
        raise typer.Exit(error.exit_code) from None


@contextmanager
def _progress(videos: int, writer: PredictionWriter | None, *, shown: bool) -> Iterator[dict[str, Any]]:
    """Progress bar on stderr, and the callbacks of `evaluate` that move it and write masks."""
    done = {"videos": 0, "frames": 0}
    with progress(shown=shown) as on_progress:

        def show() -> None:
            on_progress("scoring", done["videos"], videos, f"videos · {done['frames']} frames")

        def on_frame(video: VspwVideo, frame: VspwFrame, labels: NDArray[np.uint8]) -> None:
            if writer is not None:
                writer(video, frame, labels)
            done["frames"] += 1
            show()

        def on_video(score: VideoScore) -> None:
            done["videos"] += 1
            show()

        yield {"on_frame": on_frame, "on_video": on_video}


def _print_notes(result: Evaluation) -> None:
    """Print what was skipped and why."""
    for skip in result.skipped[:_NOTES_SHOWN]:
        where = skip.video if skip.frame is None else f"{skip.video}/{skip.frame}"
        print_warning(f"{skip.kind}: {where}: {skip.reason}")
    more = len(result.skipped) - _NOTES_SHOWN
    if more > 0:
        print_warning(f"{more} more like this; --json and eval.json list them all")
