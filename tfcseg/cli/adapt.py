"""``tfcseg adapt``: train TFC for a network on a user's unlabelled videos; the network itself does not change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfcseg.adaptation.options import AdaptOptions
from tfcseg.cli import options
from tfcseg.cli.console import is_terminal, one_line, print_line, print_warning, progress
from tfcseg.cli.groups import grouped
from tfcseg.cli.results import print_json, print_tables
from tfcseg.cli.train import describe
from tfcseg.errors import Interrupted, UsageError
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.adaptation.adapt import AdaptResult


@grouped
def command(
    *,
    videos: Annotated[list[Path], typer.Argument(help="Videos or folders of frames; they need no labels.")],
    choice: options.ModelChoice,
    output: Annotated[Path, options.output("Weights file to write, .safetensors.")],
    validate: Annotated[
        list[Path] | None,
        typer.Option(help="Measure on this video; may be given again.", show_default="the ends of the videos"),
    ] = None,
    numbers: AdaptOptions,
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    printing: options.Printing,
) -> None:
    """Teach TFC to a network on your own videos, without labels.

    The labels that the network gives single frames are the teacher; the network itself does not change. Run the same
    command again to continue an interrupted one.

    Example: tfcseg adapt assets/demo.mp4 -o a.safetensors --steps 2 --size 64
    """
    if output.suffix != ".safetensors":
        raise UsageError(f"{str(output)!r} is not a weights file; give one that ends in .safetensors")
    from tfcseg.adaptation.adapt import AdaptListener, adapt, work_folder
    from tfcseg.files import claimed_files

    measured_on = validate or []

    def show(record: dict[str, Any]) -> None:
        if not (printing.quiet or is_terminal()):  # a terminal has bars
            print_line(describe(record))

    try:
        with (
            claimed_files(output.parent, [output.name], inputs=[*videos, *measured_on], overwrite=overwrite),
            progress(shown=not printing.quiet) as on_progress,
        ):
            result = adapt(
                *(videos, choice.model, output, numbers),
                validate=measured_on,
                device=device,
                overwrite=overwrite,
                listener=AdaptListener(on_progress, show),
            )
    except KeyboardInterrupt:
        kept = f"progress is kept in {work_folder(output)}; run the same command again to continue"
        raise Interrupted(f"interrupted; {kept}") from None
    _report(result, printing)


def _report(result: AdaptResult, printing: options.Printing) -> None:
    from tfcseg.files import json_object
    from tfcseg.research.tables import adapted_table

    content = json_object(result)
    if not printing.quiet:
        print_tables(adapted_table([content]), on_stderr=True)
        if result.steps and not result.keeps_attention:
            print_warning("the sparse attention was left out: it brought labels no closer to those of mode image")
    if printing.as_json:
        print_json(content)
    else:
        print(one_line(result.output))
