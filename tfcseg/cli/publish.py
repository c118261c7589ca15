"""``tfcseg publish``: measure a trained model and enter it into a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfcseg.cli.console import stderr


def command(
    weights: Annotated[Path, typer.Argument(help="A weights file, e.g. best.safetensors of a training run.")],
    name: Annotated[str, typer.Option(help="Name of the model in the registry.")],
    measure_on: Annotated[Path, typer.Option("--measure", help="VSPW folder to measure on, in image and tfc mode.")],
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "val",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the registry.")] = Path("assets"),
    description: Annotated[str, typer.Option(help="One line for the model card.")] = "",
    trained_on: Annotated[str | None, typer.Option(help="Data and their licences.", show_default="as trained")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights.", show_default="as trained")] = None,
    correlation: Annotated[str | None, typer.Option(help="What the model correlates by default.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Make it the default model.")] = False,
) -> None:
    """Measure a trained model on a VSPW folder, write the numbers into its card and add it to a registry.

    Example: tfcseg publish runs/tfc/best.safetensors --name mine --measure VSPW_480p -o models
    """
    from tfcseg.publishing import measure, publish

    measured = measure(weights, measure_on, split, correlation=correlation)
    for key, value in measured.items():
        stderr.print(f"{key} {value}")
    path = publish(
        weights,
        output,
        name=name,
        description=description,
        measured=measured,
        default=default,
        correlation=correlation,
        trained_on=trained_on,
        licence=licence,
    )
    print(path)
