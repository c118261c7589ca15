"""``tfcseg research fit-evidence``: let a model's evidence curve say how much look-alikes are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.groups import grouped
from tfcseg.cli.progress import progress
from tfcseg.cli.result_file import claimed_file, show_result
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.research.evidence_fit import EvidenceFit


@grouped
def command(
    *,
    clips: Annotated[
        list[Path], typer.Argument(help="Videos or folders of frames; they need no labels.", show_default=False)
    ],
    model: options.Model = "default",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Weights file with the curve in its card; else it is printed only."),
    ] = None,
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.ResultOnly = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Fit a model's evidence curve for --sides both.

    The curve says how much more often than by chance two positions of a given similarity have the same label.

    Example: tfcseg research fit-evidence assets/demo.mp4 -o fitted.safetensors
    """
    from tfcseg.research.evidence_fit import fit_evidence, write_fitted
    from tfcseg.weights.loading import load_model
    from tfcseg.weights.registry import locate_weights

    with claimed_file(output, clips, overwrite=overwrite):
        loaded = load_model(model, device=device.device, precision=device.precision)
        with progress(unit="clips", shown=not quiet) as on_progress:
            found = fit_evidence(loaded, clips, on_progress=on_progress)
        if output is not None:
            write_fitted(locate_weights(model)[0], output, found.curve)
    show_result(found, _print, output, as_json=as_json, quiet=quiet)


def _print(found: EvidenceFit) -> None:
    print(f"evidence at similarity 0, 0.1 … 1: {' '.join(f'{value:g}' for value in found.curve)}")
    print(f"from {found.pairs} pairs of frames of {found.clips} clips")
