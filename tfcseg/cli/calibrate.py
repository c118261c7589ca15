"""``tfcseg research calibrate``: let a model's confidence say how many labels are right."""

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
    from tfcseg.research.calibration import Calibration


@grouped
def command(
    *,
    sets: Annotated[
        list[Path],
        typer.Argument(
            help="Held-out stills: folders with images/, masks/ (value = id, 0 = void) and classes.json {id: name}.",
            show_default=False,
        ),
    ],
    model: options.Model = "default",
    allow_network: options.AllowNetwork = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Weights file with the temperature in its card; else it is printed only."),
    ] = None,
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.ResultOnly = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Calibrate a model's confidence on labelled photos.

    Fits its temperature on photos that it was not trained on, and reports the calibration error.

    Example: tfcseg research calibrate facades/test -o c.safetensors
    """
    from tfcseg.research.calibration import calibrate, write_calibrated
    from tfcseg.weights.loading import load_model
    from tfcseg.weights.registry import locate_weights

    with claimed_file(output, sets, overwrite=overwrite):
        loaded = load_model(model, device=device.device, precision=device.precision)
        with progress(unit="stills", shown=not quiet) as on_progress:
            found = calibrate(loaded, sets, on_progress=on_progress)
        if output is not None:
            write_calibrated(locate_weights(model)[0], output, found.to_measured())
    show_result(found, _print, output, as_json=as_json, quiet=quiet)


def _print(found: Calibration) -> None:
    print(f"temperature {found.temperature:.3f}")
    print(f"calibration error {found.error:.2f} % (unfitted: {found.error_unfitted:.2f} %)")
    print(f"labels that are right {found.accuracy:.2f} % of {found.labels} on {found.stills} stills")
