"""``tfcseg research …``: commands for the paper's tables, model cards and tables of the README."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfcseg.cli import ablate, held_out, options
from tfcseg.cli.console import one_line, print_line
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.program import Command
from tfcseg.cli.results import FittedFile, measured
from tfcseg.model.options import InferenceOptions
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.research.calibration import Calibration
    from tfcseg.research.evidence_fit import EvidenceFit

app = typer.Typer(help="Reproduce the paper's tables; measure and publish models.", rich_markup_mode=None)
app.command("ablate", cls=Command)(ablate.command)
app.command("stills", cls=Command)(held_out.stills)
app.command("clips", cls=Command)(held_out.clips)


Stills = Annotated[
    list[Path],
    typer.Argument(
        help="Held-out photos: folders with images/, masks/ (value = id, 0 = void) and classes.json {id: name}."
    ),
]
Clips = Annotated[list[Path], typer.Argument(help="Videos or folders of frames, without labels.")]


@app.command("calibrate", cls=Command)
@grouped
def calibrate_command(
    *, sets: Stills, choice: options.ModelChoice, file: FittedFile, device: DeviceOptions, printing: options.Printing
) -> None:
    """Calibrate a model's confidence on labelled photos.

    Fits its temperature on photos that it was not trained on, and reports the calibration error.

    Example: tfcseg research calibrate facades/test -o c.safetensors
    """
    from tfcseg.research.calibration import calibrate, write_calibrated
    from tfcseg.weights.loading import open_model
    from tfcseg.weights.registry import locate_weights

    measured(
        lambda on_progress: calibrate(open_model(choice.model, device), sets, on_progress=on_progress),
        _print_calibration,
        inputs=sets,
        file=file,
        printing=printing,
        unit="stills",
        write=lambda path, found: write_calibrated(locate_weights(choice.model)[0], path, found.to_measured()),
    )


@app.command("fit-evidence", cls=Command)
@grouped
def fit_evidence_command(
    *, clips: Clips, choice: options.ModelChoice, file: FittedFile, device: DeviceOptions, printing: options.Printing
) -> None:
    """Fit a model's evidence curve for --sides both.

    The curve says how much more often than by chance two positions of a given similarity have the same label.

    Example: tfcseg research fit-evidence assets/demo.mp4 -o fitted.safetensors
    """
    from tfcseg.research.evidence_fit import fit_evidence, write_fitted
    from tfcseg.weights.loading import open_model
    from tfcseg.weights.registry import locate_weights

    measured(
        lambda on_progress: fit_evidence(open_model(choice.model, device), clips, on_progress=on_progress),
        _print_evidence,
        inputs=clips,
        file=file,
        printing=printing,
        unit="clips",
        write=lambda path, found: write_fitted(locate_weights(choice.model)[0], path, found),
    )


def _print_calibration(found: Calibration) -> None:
    print(f"temperature {found.temperature:.3f}")
    print(f"calibration error {found.error:.2f} % (unfitted: {found.error_unfitted:.2f} %)")
    print(f"right labels {found.accuracy:.2f} % of {found.labels} on {found.stills} photos")


def _print_evidence(found: EvidenceFit) -> None:
    print(f"evidence at similarity 0, 0.1 … 1: {' '.join(f'{value:g}' for value in found.curve)}")
    print(f"from {found.pairs} pairs of frames of {found.clips} clips")


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
    from tfcseg.files import claimed_files
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
    print(one_line(str(path)))


@app.command(cls=Command)
def tables(
    root: Annotated[Path, typer.Argument(help="A checkout of the repository.", show_default="here")] = Path(),
) -> None:
    """Update the tables in README.md and assets/*.md.

    Reads assets/results and prints the names of the files that changed.

    Example: tfcseg research tables .
    """
    from tfcseg.research.tables import write_tables

    for path in write_tables(root):
        print(one_line(str(path)))


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
    from tfcseg.files import claimed_files
    from tfcseg.research.publishing import average_files

    files = [part.rpartition("=")[0] for part in parts]
    with claimed_files(out.parent, [out.name], inputs=files, overwrite=overwrite):
        print(one_line(average_files(out, parts).description))
