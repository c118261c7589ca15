"""Options of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tfcseg.errors import UsageError
from tfcseg.media.source import Source
from tfcseg.model.options import InferenceOptions
from tfcseg.options import Option, check
from tfcseg.weights.device import DeviceOptions

PARTS = ("model", "end-to-end", "memory")
CLASSES = 150  # of random weights
DEMO = Path(__file__).parents[2] / "assets" / "demo.mp4"  # only in a copy of the repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Parts to measure, and how often; None stands for the model's default."""

    video: Annotated[Path, Option("A video.", is_argument=True, default_text="the demo clip")] = DEMO
    model: str = "default"
    parts: Sequence[str] = PARTS
    inference: InferenceOptions = InferenceOptions()
    device: DeviceOptions = DeviceOptions()
    backbone: Annotated[
        str | None,
        Option(
            "Measure random weights of this backbone: mit_b0 … mit_b5, efficientnet_lite0, mosaic.", default_text=""
        ),
    ] = None
    """Instead of a model."""
    classes: Annotated[
        int | None,
        Option("Number of classes of the random weights, 2 to 254.", low=2, high=254, default_text=str(CLASSES)),
    ] = None
    frames: Annotated[int, Option("Frames per round for the network alone.", low=1)] = 24
    clip_frames: Annotated[int, Option("Frames per round for whole runs, from file to files.", low=1)] = 96
    plain_frames: Annotated[int, Option("Frames per round for plain SegFormer.", low=1)] = 12
    """For the network alone and for whole runs; all frames cost the same."""
    rounds: Annotated[int, Option("Rounds after the warm-up round.", low=1)] = 5

    def check(self) -> None:
        """Raise UsageError for invalid values, before anything is loaded."""
        check(self)
        if self.video == DEMO and not DEMO.is_file():
            raise UsageError("there is no demo clip here; name a video to measure")
        if self.classes is not None and self.backbone is None:
            raise UsageError("--classes is for random weights; add --backbone, or leave it out")
        Source.of(self.video).check_readable_again("every round reads the clip")
