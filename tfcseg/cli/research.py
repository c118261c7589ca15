"""``tfcseg research …``: commands for the paper's tables, model cards and tables of the README."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.console import OnProgress, fail_if_incomplete, measured, print_line
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.program import Command, Program
from tfcseg.evaluation.scope import Scope
from tfcseg.files import claimed_files
from tfcseg.model.options import MODE_VARIANTS, PAPER_OPTIONS, InferenceOptions
from tfcseg.research import tables as markdown
from tfcseg.research.paper import row_names
from tfcseg.spelling import visible
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.research.calibration import Calibration

app = typer.Typer(cls=Program, help="Reproduce the paper's tables; measure and publish models.", rich_markup_mode=None)

_SETTINGS = ("paper", "model")
_STILLS = "folders with images/, masks/ (value = id, 0 = void) and, in them or above, classes.json {id: name}."


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


@app.command("ablate", cls=Command)
@grouped
def ablate_command(
    *,
    root: options.VspwFolder,
    choice: options.ModelChoice,
    rows: Annotated[
        list[str] | None, options.some_of("row", row_names(), "Rows to compute, e.g. image,reuse,tfc.", default="all")
    ] = None,
    without_bce: Annotated[str | None, typer.Option(help="Weights trained without L_bce, for an extra row.")] = None,
    settings: Annotated[
        str,
        typer.Option(
            help="Take correlation, interval and threshold from the paper or the model.",
            callback=options.one_of("settings", _SETTINGS),
            autocompletion=options.completing(_SETTINGS),
        ),
    ] = "paper",
    inference: Annotated[InferenceOptions, Without("mode", "latency", default_text="as --settings says")],
    scope: Scope,
    device: DeviceOptions,
    file: options.ResultFile,
    printing: options.Printing,
) -> None:
    """Leave out or replace the steps of TFC one by one.

    Prints mIoU, VC and updated points beside the paper's numbers.

    Example: tfcseg research ablate VSPW_480p --rows image,tfc -o ablation.json
    """
    from tfcseg.research.ablate import ablate

    inference = inference.completed_by(PAPER_OPTIONS if settings == "paper" else InferenceOptions())
    measure = partial(
        ablate, root, choice.model, inference, rows=rows or None, without_bce=without_bce, scope=scope, device=device
    )
    result = measured(measure, markdown.ablation_table, inputs=[root], file=file, printing=printing, unit="videos")
    fail_if_incomplete(result.skipped, is_incomplete=result.is_incomplete, skip_bad=scope.skip_bad)


@app.command("stills", cls=Command)
@grouped
def stills_command(
    *,
    sets: Annotated[list[Path], typer.Argument(help=f"Labelled photos: {_STILLS}")],
    models: Models = None,
    allow_network: options.AllowNetwork = False,
    teachers: Teachers = None,
    device: DeviceOptions,
    file: options.ResultFile,
    printing: options.Printing,
) -> None:
    """Score models and their teachers on labelled photos.

    All are scored on the same classes, matched by the built-in tables for COCO, MSRC, LabelMe facades, VSPW, ADE20K,
    Cityscapes and VOC.

    Example: tfcseg research stills facades/test --teachers teachers
    """
    from tfcseg.research.stills import compare_stills

    networks = models or ["default"], _teacher_files(teachers)
    measure = partial(compare_stills, sets, *networks, device=device)
    measured(measure, markdown.still_table, inputs=sets, file=file, printing=printing, unit="stills")


@app.command("clips", cls=Command)
@grouped
def clips_command(
    *,
    sources: Annotated[list[Path], typer.Argument(help="Videos, or folders of frames.")],
    models: Models = None,
    allow_network: options.AllowNetwork = False,
    teachers: Teachers = None,
    modes: Annotated[
        list[str] | None,
        options.some_of(
            "mode",
            MODE_VARIANTS,
            "Modes, also with a correlation of their own: tfc-paper, tfc-aligned; the others are compared with the "
            "first.",
            default="image,tfc",
        ),
    ] = None,
    inference: Annotated[InferenceOptions, Without("mode", "latency")],
    first: Annotated[float, typer.Option(min=0.1, help="Seconds of each clip to use.")] = 8.0,
    max_frames: Annotated[int, typer.Option(min=2, help="Maximum number of frames per clip.")] = 120,
    device: DeviceOptions,
    file: options.ResultFile,
    printing: options.Printing,
) -> None:
    """Measure how steady labels are on unlabelled clips.

    Compares modes by flow consistency, label change, and VC with the teachers' labels as ground truth.

    Example: tfcseg research clips assets/demo.mp4 --max-frames 6 -t teachers
    """
    from tfcseg.research.clips import compare_clips

    networks = models or ["default"], _teacher_files(teachers)
    measure = partial(compare_clips, sources, *networks, modes=modes or ["image", "tfc"], inference=inference)
    measure = partial(measure, first_s=first, max_frames=max_frames, device=device)
    measured(measure, _clips, inputs=sources, file=file, printing=printing, unit="clips")


def _teacher_files(paths: Sequence[Path] | None) -> list[Path]:
    from tfcseg.training.teachers import teacher_files

    return teacher_files(paths or [])


def _clips(result: markdown.Result) -> str:
    return markdown.clip_table(result) if len(result["modes"]) > 1 else markdown.clip_means_table([result])


@app.command("calibrate", cls=Command)
@grouped
def calibrate_command(
    *,
    sets: Annotated[list[Path], typer.Argument(help=f"Held-out photos: {_STILLS}")],
    choice: options.ModelChoice,
    file: options.ResultFile,
    device: DeviceOptions,
    printing: options.Printing,
) -> None:
    """Calibrate a model's confidence on labelled photos.

    Fits its temperature on photos that it was not trained on, and reports the calibration error.

    Example: tfcseg research calibrate facades/test -o c.safetensors
    """
    from tfcseg.research.calibration import calibrate, write_with_card
    from tfcseg.weights.loading import open_model
    from tfcseg.weights.registry import locate_weights

    if file.output is not None:
        options.check_weights_name(file.output)

    def measure(on_progress: OnProgress) -> Calibration:
        return calibrate(open_model(choice.model, device), sets, on_progress=on_progress)

    def write(path: Path, found: Calibration) -> None:
        write_with_card(locate_weights(choice.model)[0], path, found.on_card)

    measured(measure, _calibration, inputs=sets, file=file, printing=printing, unit="stills", write=write)


def _calibration(found: markdown.Result) -> str:
    return (
        f"temperature {found['temperature']:.3f}\n\n"
        f"calibration error {found['error']:.2f} % (unfitted: {found['error_unfitted']:.2f} %)\n\n"
        f"right labels {found['accuracy']:.2f} % of {found['labels']} on {found['stills']} photos"
    )


@app.command("publish", cls=Command)
@grouped
def publish(
    *,
    weights: Annotated[Path, typer.Argument(help="A weights file, e.g. best.safetensors of a training run.")],
    name: Annotated[str, typer.Option(help="Name of the model in the registry.")],
    measure_on: Annotated[Path, typer.Option("--measure", help="VSPW folder to measure on, in modes image and tfc.")],
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "val",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the registry.")] = Path("assets"),
    description: Annotated[str, typer.Option(help="One-line description for the model card.")] = "",
    trained_on: Annotated[
        str | None, typer.Option(help="Training data and their licences.", show_default="as trained")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights.", show_default="as trained")] = None,
    inference: Annotated[InferenceOptions, Without("mode", "size", "latency")],
    default: Annotated[bool, typer.Option("--default", help="Make it the default model.")] = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Measure a trained model and add it to a registry.

    The scores are measured on a VSPW folder and go into the model's card.

    Options such as --correlation become the published model's defaults.

    Example: tfcseg research publish my.safetensors --name m --measure VSPW_480p
    """
    from tfcseg.research import publishing

    with claimed_files(output, []):  # remove the folder again if nothing was written
        publishing.check_registry(output, name)
        measured = publishing.measure(weights, measure_on, split, defaults=inference)
        for key, value in measured.items():
            print_line(f"{key} {value}")
        path = publishing.publish(
            weights,
            output,
            name=name,
            description=description,
            measured=measured,
            default=default,
            defaults=inference,
            trained_on=trained_on,
            licence=licence,
        )
    print(visible(str(path)))


@app.command(cls=Command)
def tables(
    root: Annotated[Path, typer.Argument(help="A checkout of the repository.", show_default="here")] = Path(),
) -> None:
    """Update the tables in README.md and assets/*.md.

    Reads assets/results and prints the names of the files that changed.

    Example: tfcseg research tables .
    """
    for path in markdown.write_tables(root):
        print(visible(str(path)))


@app.command(cls=Command)
def average(
    out: Annotated[Path, typer.Argument(help="Weights file to write.")],
    parts: Annotated[list[str], typer.Argument(metavar="WEIGHTS=SHARE...", help="Files and their shares of the mean.")],
    overwrite: options.Overwrite = False,
) -> None:
    """Average the weights of several training runs.

    The runs must have started from the same model. The card of the result names the files and their shares.

    Example: tfcseg research average mean.safetensors my.safetensors=1
    """
    from tfcseg.research.publishing import average_files

    options.check_weights_name(out)
    files = [part.rpartition("=")[0] or part for part in parts]
    with claimed_files(out.parent, [out.name], inputs=files, overwrite=overwrite):
        print(visible(average_files(out, parts).description))


@app.command("add-things", cls=Command)
def add_things(
    weights: Annotated[Path, typer.Argument(help="A weights file.")],
    source: Annotated[
        str,
        typer.Argument(
            help="A model that has such a network, or a .tflite file of DeepLabv3 with MobileNetV2 and VOC's classes."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Weights file to write.")],
    overwrite: options.Overwrite = False,
) -> None:
    """Add a second network for animals and vehicles to a model.

    It also finds furniture: all classes of Pascal VOC that the model has. People and cars become their rivals.

    Example: tfcseg research add-things my.safetensors tfc-mosaic m2.safetensors
    """
    from tfcseg.research import publishing

    options.check_weights_name(out)
    with claimed_files(out.parent, [out.name], inputs=[str(weights), source], overwrite=overwrite):
        card = publishing.add_things(weights, source, out)
        print(visible(", ".join(card.labels.names[number] for number in card.config.things)))
