"""`tfcseg.steady`: masks of another program, without their flicker."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from tfcseg.errors import in_python_words
from tfcseg.media.source import Given
from tfcseg.options import sort_options
from tfcseg.report.schema import Report
from tfcseg.runs.options import ResultOptions, RunOptions, SteadyOptions
from tfcseg.runs.outputs import default_output
from tfcseg.runs.pipeline import Listener, OnFrame, run_video
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel


def steady(
    source: Given,
    masks: str | Path,
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    *,
    frame_rate: Fraction | None = None,
    device: str = "auto",
    precision: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    allow_network: bool = False,
    on_frame: OnFrame = lambda frame, info: None,
    **options: Any,
) -> Report:
    """Steady the masks of a video, one PNG per frame in the folder ``masks``, and write what `tfcseg.run` writes.

    output: folder, by default ``<stem>_steady`` in the current one. ``options`` are fields of `SteadyOptions` and
    `ResultOptions`, such as ``void=0`` and ``overlay=False``. ``model`` is the one whose features are compared.
    Failures and ``resume`` are as in `tfcseg.run`.
    """
    steadied, written = sort_options("steady", options, SteadyOptions, ResultOptions)
    wanted = RunOptions(
        device=DeviceOptions(device, precision),
        frame_rate=frame_rate,
        results=ResultOptions(**written),
        overwrite=overwrite,
        resume=resume,
        allow_network=allow_network,
        steady=replace(SteadyOptions(**steadied), masks=Path(masks)),
    )
    with in_python_words():
        return run_video(source, output or default_output(source, "steady"), model, wanted, Listener(on_frame))
