"""``tfcseg research stills`` and ``tfcseg research clips``: measure models and teachers on held-out data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tfcseg.cli import options
from tfcseg.cli.console import plain
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.results import ResultFile, measured, new_table, number, print_results
from tfcseg.model.options import MODE_VARIANTS, InferenceOptions
from tfcseg.weights.device import DeviceOptions
from tfcseg.workers import WorkerOptions

if TYPE_CHECKING:
    from tfcseg.research.held_out import ClipsResult, StillsResult
    from tfcseg.research.held_out.clips import ModelScores

_COLUMNS = (
    ("flow consistency", "flow_consistency"),
    ("label\nchange", "label_change"),
    ("VC8", "vc8"),
    ("VC16", "vc16"),
    ("as\nteachers", "agreement"),
)


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
    """Print a table per vocabulary: mIoU of every network on every set, the mean, and its share of the best teacher."""
    for vocabulary in dict.fromkeys(each.network.label_set for each in result.networks):
        sets = [plain(f"{each.name}\n{len(each.classes[vocabulary])} classes") for each in result.sets]
        table = new_table(["mIoU (%)", *sets, "mean", "of the best\nteacher"])
        for scores in result.networks:
            share = scores.to_best_teacher.get(vocabulary)
            own = [scores.scores[each.name][vocabulary] for each in result.sets]
            table.add_row(
                scores.network.name + (" (teacher)" if scores.network.role == "teacher" else ""),
                *(number(each.miou, 2) if each.is_complete else f"({number(each.miou, 2)})" for each in own),
                number(scores.mean[vocabulary], 2),
                "" if share is None else f"{share:.1f} %",
            )
        print_results(f"classes of {vocabulary}", table)
    print_results("in brackets: the network lacks some of the classes; they count as 0")


def _print_clips(result: ClipsResult) -> None:
    """Print a table per model: the first mode's numbers on every clip, and the differences of the others."""
    for scores in result.results:
        first, *others = result.modes
        for mode in others or [first]:
            title = f"{scores.name}: {first}" + (f" and change by {mode}" if others else "")
            print_results(title, _clip_table(result, scores, mode))
    teachers = f"VC by labels of {', '.join(result.teachers)}; " if result.teachers else ""
    print_results(f"{teachers}flow consistency along {result.optical_flow}")


def _clip_table(result: ClipsResult, scores: ModelScores, mode: str) -> Table:
    first = result.modes[0]
    shown = [(title, key) for title, key in _COLUMNS if key in scores.mean[first]]
    # On 80 columns, clip names are the column to shorten.
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for title, _ in shown:
        table.add_column(title, justify="right", no_wrap=True)
    for clip in result.clips:
        numbers = scores.clips[clip.name]
        cells = [_step(numbers[first], numbers[mode], key) for _, key in shown]
        table.add_row(plain(clip.name), *cells)
    table.add_row("mean", *(_step(scores.mean[first], scores.mean[mode], key) for _, key in shown))
    if mode in scores.changes:
        change = scores.changes[mode]
        better = [f"{change.better.get(key, 0)} of {len(result.clips)}" for _, key in shown]
        table.add_row("better on", *better)
    return table


def _step(first: Mapping[str, float | None], other: Mapping[str, float | None], key: str) -> str:
    before, after = first[key], other[key]
    if before is None or after is None or first is other:
        return number(before, 2)
    return f"{before:.2f} {after - before:+.2f}"
