"""``tfcseg steady``: masks of another program, without their flicker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfcseg.cli import options
from tfcseg.cli.groups import Without, grouped
from tfcseg.cli.run import Resume, run_all
from tfcseg.runs.options import ResultOptions, SteadyOptions
from tfcseg.weights.device import DeviceOptions

Video = Annotated[str, typer.Argument(metavar="VIDEO", help="The video, or folder of images, that the masks are of.")]
_NOT_OF_MASKS = ("classes", "exclude", "palette", "export", "masks", "mask_names", "confidence", "unsure")


@grouped
def command(
    *,
    video: Video,
    steady: SteadyOptions,
    output: Annotated[Path | None, options.output("Folder for the results.", "<name>_steady")] = None,
    model: options.Model = "default",
    fps: options.FrameRate = None,
    overwrite: options.Overwrite = False,
    resume: Resume = False,
    allow_network: options.AllowNetwork = False,
    printing: options.Printing,
    results: Annotated[ResultOptions, Without(*_NOT_OF_MASKS)],
    device: DeviceOptions,
) -> None:
    """Take the flicker out of the masks of any program.

    Example: tfcseg steady clip.mp4 --masks clip_masks -o clip_steady
    """
    from tfcseg.runs.inputs import Inputs
    from tfcseg.runs.options import RunOptions
    from tfcseg.runs.outputs import default_output

    job = RunOptions(
        device=device,
        frame_rate=fps,
        results=results,
        overwrite=overwrite,
        resume=resume,
        allow_network=allow_network,
        steady=steady,
    )
    found = Inputs((video,), is_batch=False)
    run_all(found, output or default_output(video, "steady"), model, job, printing)
