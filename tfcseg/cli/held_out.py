"""``tfcseg research stills`` and ``tfcseg research clips``: measure models and teachers on held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.results import ResultFile, measured, print_tables
from tfcseg.model.options import MODE_VARIANTS, InferenceOptions
from tfcseg.weights.device import DeviceOptions
from tfcseg.workers import WorkerOptions

if TYPE_CHECKING:
    from tfcseg.research.held_out import ClipsResult, StillsResult


def _all_on_disk(context: typer.Context, models: list[str] | None) -> list[str]:
    return [model for name in models or () if (model := options.on_disk(context, name))]


Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="Shipped model, weights file or any SegFormer; repeat it for several.",
        show_default="default",
        autocompletion=options.completing(options.model_names),
        callback=_all_on_disk,
    ),
]
Teachers = Annotated[
    list[Path] | None,
    typer.Option(
        "--teachers",
        "-t",
        help="Teacher networks: .tflite files or folders of them, with ADE20K's 31 or VOC's 20 classes.",
    ),
]
Sets = Annotated[
    list[Path],
    typer.Argument(
        help="Folders with images/, masks/ (value = id, 0 = void) and, in them or above, classes.json {id: name}."
    ),
]
Sources = Annotated[list[Path], typer.Argument(help="Videos, or folders of frames.")]
Modes = Annotated[
    list[str] | None,
    options.some_of(
        "mode",
        MODE_VARIANTS,
        "Modes, also with a correlation of their own: tfc-paper, tfc-aligned; the others are compared with the first.",
        default="image,tfc",
    ),
]


@grouped
def stills(
    *,
    sets: Sets,
    models: Models = None,
    allow_network: options.AllowNetwork = False,
    teachers: Teachers = None,
    device: DeviceOptions,
    workers: WorkerOptions,
    file: ResultFile,
    printing: options.Printing,
) -> None:
    """Score models and their teachers on labelled photos.

    All are scored on the same classes, matched by the built-in tables for COCO, MSRC, LabelMe facades, VSPW, ADE20K,
    Cityscapes and VOC.

    Example: tfcseg research stills facades/test --teachers teachers
    """
    from tfcseg.research.held_out import compare_stills

    measured(
        lambda on_progress: compare_stills(
            sets,
            models or ["default"],
            _teacher_files(teachers),
            device=device,
            workers=workers,
            on_progress=on_progress,
        ),
        _print_stills,
        inputs=sets,
        file=file,
        printing=printing,
        unit="stills",
    )


@grouped
def clips(
    *,
    sources: Sources,
    models: Models = None,
    allow_network: options.AllowNetwork = False,
    teachers: Teachers = None,
    modes: Modes = None,
    inference: Annotated[InferenceOptions, Without("mode", "latency")],
    first: Annotated[float, typer.Option(min=0.1, help="Seconds of each clip to use.")] = 8.0,
    max_frames: Annotated[int, typer.Option(min=2, help="Maximum number of frames per clip.")] = 120,
    device: DeviceOptions,
    workers: WorkerOptions,
    file: ResultFile,
    printing: options.Printing,
) -> None:
    """Measure how steady labels are on unlabelled clips.

    Compares modes by flow consistency, label change, and VC with the teachers' labels as ground truth.

    Example: tfcseg research clips assets/demo.mp4 --max-frames 6 -t teachers
    """
    from tfcseg.research.held_out import compare_clips

    measured(
        lambda on_progress: compare_clips(
            sources,
            models or ["default"],
            _teacher_files(teachers),
            modes=modes or ["image", "tfc"],
            inference=inference,
            first_s=first,
            max_frames=max_frames,
            device=device,
            workers=workers,
            on_progress=on_progress,
        ),
        _print_clips,
        inputs=sources,
        file=file,
        printing=printing,
        unit="clips",
    )


def _teacher_files(paths: Sequence[Path] | None) -> list[Path]:
    from tfcseg.training.teachers import teacher_files

    return teacher_files(paths or [])


def _print_stills(result: StillsResult) -> None:
    from tfcseg.files import json_object
    from tfcseg.research.tables import still_table

    print_tables(still_table([json_object(result)]))


def _print_clips(result: ClipsResult) -> None:
    from tfcseg.files import json_object
    from tfcseg.research.tables import clip_means_table, clip_table

    print_tables((clip_table if len(result.modes) > 1 else clip_means_table)([json_object(result)]))
