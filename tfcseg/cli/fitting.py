"""``tfcseg research calibrate`` and ``fit-evidence``: fit a number of a model's card to data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfcseg.cli.groups import grouped
from tfcseg.cli.options import ModelChoice, Printing
from tfcseg.cli.progress import OnProgress
from tfcseg.cli.result_file import FittedFile, measured
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.research.calibration import Calibration
    from tfcseg.research.evidence_fit import EvidenceFit

Stills = Annotated[
    list[Path],
    typer.Argument(
        help="Held-out photos: folders with images/, masks/ (value = id, 0 = void) and classes.json {id: name}.",
        show_default=False,
    ),
]
Clips = Annotated[list[Path], typer.Argument(help="Videos or folders of frames, without labels.", show_default=False)]


@grouped
def calibrate(
    *, sets: Stills, choice: ModelChoice, file: FittedFile, device: DeviceOptions, printing: Printing
) -> None:
    """Calibrate a model's confidence on labelled photos.

    Fits its temperature on photos that it was not trained on, and reports the calibration error.

    Example: tfcseg research calibrate facades/test -o c.safetensors
    """
    from tfcseg.research import calibration
    from tfcseg.weights.loading import open_model
    from tfcseg.weights.registry import locate_weights

    def measure(on_progress: OnProgress) -> Calibration:
        return calibration.calibrate(open_model(choice.model, device), sets, on_progress=on_progress)

    def write(path: Path, found: Calibration) -> None:
        calibration.write_calibrated(locate_weights(choice.model)[0], path, found.to_measured())

    measured(measure, _print_calibration, inputs=sets, file=file, printing=printing, unit="stills", write=write)


@grouped
def fit_evidence(
    *, clips: Clips, choice: ModelChoice, file: FittedFile, device: DeviceOptions, printing: Printing
) -> None:
    """Fit a model's evidence curve for --sides both.

    The curve says how much more often than by chance two positions of a given similarity have the same label.

    Example: tfcseg research fit-evidence assets/demo.mp4 -o fitted.safetensors
    """
    from tfcseg.research import evidence_fit
    from tfcseg.weights.loading import open_model
    from tfcseg.weights.registry import locate_weights

    def measure(on_progress: OnProgress) -> EvidenceFit:
        return evidence_fit.fit_evidence(open_model(choice.model, device), clips, on_progress=on_progress)

    def write(path: Path, found: EvidenceFit) -> None:
        evidence_fit.write_fitted(locate_weights(choice.model)[0], path, found.curve)

    measured(measure, _print_evidence, inputs=clips, file=file, printing=printing, unit="clips", write=write)


def _print_calibration(found: Calibration) -> None:
    print(f"temperature {found.temperature:.3f}")
    print(f"calibration error {found.error:.2f} % (unfitted: {found.error_unfitted:.2f} %)")
    print(f"right labels {found.accuracy:.2f} % of {found.labels} on {found.stills} photos")


def _print_evidence(found: EvidenceFit) -> None:
    print(f"evidence at similarity 0, 0.1 … 1: {' '.join(f'{value:g}' for value in found.curve)}")
    print(f"from {found.pairs} pairs of frames of {found.clips} clips")
