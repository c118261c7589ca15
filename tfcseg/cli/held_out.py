"""``tfcseg research stills`` and ``tfcseg research clips``: models on held-out data, beside their teachers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.held_out_tables import print_clips, print_stills
from tfcseg.cli.progress import progress
from tfcseg.cli.result_file import claimed_file, show_result
from tfcseg.cli.values import list_of
from tfcseg.model.options import MODE_VARIANTS, InferenceOptions
from tfcseg.weights.device import DeviceOptions


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
        help="Networks that taught it: .tflite files or folders of them, with ADE20K's 31 classes or VOC's 20.",
        show_default=False,
    ),
]
ResultFile = Annotated[
    Path | None, typer.Option("--output", "-o", help="File for the result as JSON.", show_default=False)
]


@grouped
def stills(
    *,
    sets: Annotated[
        list[Path],
        typer.Argument(
            help="Folders with images/, masks/ (value = id, 0 = void) and, in them or above, classes.json {id: name}.",
            show_default=False,
        ),
    ],
    models: Models = None,
    allow_network: options.AllowNetwork = False,
    teachers: Teachers = None,
    output: ResultFile = None,
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.ResultOnly = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Score models and their teachers on labelled photos.

    All are scored on the same classes, matched by the built-in tables for COCO, MSRC, LabelMe facades, VSPW, ADE20K,
    Cityscapes and VOC.

    Example: tfcseg research stills facades/test --teachers teachers
    """
    from tfcseg.report import write_json
    from tfcseg.research.held_out import compare_stills

    with claimed_file(output, sets, overwrite=overwrite):
        with progress(unit="stills", shown=not quiet) as on_progress:
            result = compare_stills(
                sets,
                models or ["default"],
                _teacher_files(teachers),
                device=device,
                on_progress=on_progress,
            )
        if output is not None:
            write_json(output, result)
    show_result(result, print_stills, output, as_json=as_json, quiet=quiet)


@grouped
def clips(
    *,
    sources: Annotated[list[Path], typer.Argument(help="Videos, or folders of frames.", show_default=False)],
    models: Models = None,
    allow_network: options.AllowNetwork = False,
    teachers: Teachers = None,
    modes: Annotated[
        list[str] | None,
        typer.Option(
            help="Modes, also with a correlation of their own: tfc-paper, tfc-aligned; the others "
            "are compared with the first.",
            show_default="image,tfc",
            callback=list_of("mode", lambda: MODE_VARIANTS),
            autocompletion=options.completing(lambda: MODE_VARIANTS),
        ),
    ] = None,
    inference: Annotated[InferenceOptions, Without("mode", "latency", "compile")],
    first: Annotated[float, typer.Option(min=0.1, help="Seconds of each clip that are seen.")] = 8.0,
    max_frames: Annotated[int, typer.Option(min=2, help="Frames of each clip that are seen at most.")] = 120,
    output: ResultFile = None,
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.ResultOnly = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Measure how steady labels are on unlabelled clips.

    Compares modes by flow consistency, label change, and VC with the teachers' labels as ground truth.

    Example: tfcseg research clips assets/demo.mp4 --max-frames 6 -t teachers
    """
    from tfcseg.report import write_json
    from tfcseg.research.held_out import compare_clips

    with claimed_file(output, sources, overwrite=overwrite):
        with progress(unit="clips", shown=not quiet) as on_progress:
            result = compare_clips(
                sources,
                models or ["default"],
                _teacher_files(teachers),
                modes=modes or ["image", "tfc"],
                inference=inference,
                first_s=first,
                max_frames=max_frames,
                device=device,
                on_progress=on_progress,
            )
        if output is not None:
            write_json(output, result)
    show_result(result, print_clips, output, as_json=as_json, quiet=quiet)


def _teacher_files(paths: Sequence[Path] | None) -> list[Path]:
    from tfcseg.training.teachers import teacher_files

    return teacher_files(paths or [])
