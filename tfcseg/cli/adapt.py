"""``tfcseg adapt``: a user's unlabelled videos teach TFC to a network, which stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tfcseg.adaptation.options import AdaptOptions
from tfcseg.cli import options
from tfcseg.cli.console import is_terminal, one_line, print_line, print_warning, stderr
from tfcseg.cli.groups import grouped
from tfcseg.cli.progress import progress
from tfcseg.cli.result_file import claimed_file
from tfcseg.cli.results import number, print_json
from tfcseg.cli.train import describe
from tfcseg.errors import Interrupted, UsageError
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.adaptation.adapt import AdaptResult


@grouped
def command(
    *,
    videos: Annotated[
        list[Path], typer.Argument(help="Videos or folders of frames; they need no labels.", show_default=False)
    ],
    model: options.Model = "default",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Weights file to write, .safetensors.", show_default=False)
    ],
    validate: Annotated[
        list[Path] | None,
        typer.Option(help="Measure on this video; may be given again.", show_default="the ends of the videos"),
    ] = None,
    adapt: AdaptOptions,
    device: DeviceOptions,
    allow_network: options.AllowNetwork = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Teach TFC to a network on your own videos: its labels of single frames are the teacher.

    The network itself stays as it is. The same command goes on where an interrupted one stopped.

    Example: tfcseg adapt assets/demo.mp4 -o mine.safetensors --steps 2 --size 64
    """
    if output.suffix != ".safetensors":
        raise UsageError(f"{str(output)!r} is no weights file; give one that ends in .safetensors")
    from tfcseg.adaptation.adapt import AdaptListener, work_folder
    from tfcseg.adaptation.adapt import adapt as run

    try:
        with (
            claimed_file(output, [*videos, *(validate or ())], overwrite=overwrite),
            progress(shown=not quiet) as on_progress,
        ):
            listener = AdaptListener(on_progress, _tell if not quiet and not is_terminal() else lambda record: None)
            result = run(
                *(videos, model, output, adapt),
                validate=validate or (),
                device=device,
                overwrite=overwrite,
                listener=listener,
            )
    except KeyboardInterrupt:
        kept = f"what is done is kept in {work_folder(output)}, and the same command goes on from there"
        raise Interrupted(f"interrupted; {kept}") from None
    _report(result, as_json=as_json, quiet=quiet)


def _tell(record: dict[str, Any]) -> None:
    print_line(describe(record))


def _report(result: AdaptResult, *, as_json: bool, quiet: bool) -> None:
    if not quiet:
        _print_summary(result)
        if result.steps and not result.keeps_attention:
            print_warning("the sparse attention was left out: it brought labels no closer to those of mode image")
    if as_json:
        from tfcseg.report import json_object

        print_json(json_object(result))
    else:
        print(one_line(result.output))


def _print_summary(result: AdaptResult) -> None:
    """Before and after, one row a setting."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "VC8", "as image", "repaired"):
        table.add_column(heading, justify="left" if not heading else "right")
    for setting in result.after:
        stages = {"before": result.before, "with the curve": result.with_curve, "after": result.after}
        for stage, found in stages.items():
            scores = found[setting]
            values = (number(scores[name], 1) for name in ("vc8", "agreement", "repaired"))
            table.add_row(f"{setting.replace('_', ' ')}, {stage}", *values)
    stderr.print(table)
    print_line(f"percentages, on {result.measured_on}")
