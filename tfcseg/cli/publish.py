"""``tfcseg research publish``: measure a trained model and add it to a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.console import one_line, print_line
from tfcseg.cli.groups import Without, grouped
from tfcseg.model.options import InferenceOptions


@grouped
def command(
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
    inference: Annotated[InferenceOptions, Without("mode", "size", "latency", "compile")],
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
    from tfcseg.research.publishing import check_registry, measure, publish

    with claimed_files(output, []):  # remove the folder again if nothing was written
        check_registry(output, name)
        measured = measure(weights, measure_on, split, defaults=inference)
        for key, value in measured.items():
            print_line(f"{key} {value}")
        path = publish(
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
