"""``tfcseg convert``: write a published SegFormer as a tfcseg weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.console import one_line, print_line
from tfcseg.cli.groups import Without, grouped
from tfcseg.errors import UsageError


@grouped
def command(
    *,
    source: Annotated[
        str,
        typer.Argument(
            help="A Hugging Face folder, a .safetensors or .pth file, or ORG/NAME[@REVISION].",
            show_default=False,
            callback=options.on_disk,
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .safetensors.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="Name of the model in its card.", show_default="the source's")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights in the card.", show_default="the source's")
    ] = None,
    allow_network: options.AllowNetwork = False,
    overwrite: options.Overwrite = False,
    printing: Annotated[options.Printing, Without("as_json")],
) -> None:
    """Write a published SegFormer as one weights file.

    Example: tfcseg convert segformer-b0 segformer-b0.safetensors
    """
    if output.suffix != ".safetensors":
        raise UsageError(f"{str(output)!r} is not a weights file; give a name that ends in .safetensors")
    from tfcseg.files import claimed_files
    from tfcseg.weights.loading import convert

    with claimed_files(output.parent, [output.name], inputs=[source], overwrite=overwrite):
        card = convert(source, output, name=name, licence=licence)
    if not printing.quiet:
        print_line(f"{card.name}: {card.description}; {len(card.labels)} classes; licence: {card.licence}")
    print(one_line(str(output)))
