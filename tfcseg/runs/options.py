"""The options of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from tfcseg.errors import UsageError
from tfcseg.inference.options import checked_options
from tfcseg.media.source import Source
from tfcseg.model.options import InferenceOptions
from tfcseg.runs.result_options import ResultOptions
from tfcseg.runs.steady_options import SteadyOptions
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.on_demand import Known


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `tfcseg.run`."""

    inference: InferenceOptions = InferenceOptions()
    device: DeviceOptions = DeviceOptions()
    start_s: float | None = None
    end_s: float | None = None
    frame_rate: Fraction | None = None
    """Frames per second of a folder of images; None: 25."""
    results: ResultOptions = field(default_factory=ResultOptions)
    overwrite: bool = False
    resume: bool = False
    skip_finished: bool = False
    """FinishedError, before anything is loaded, if the same run is finished."""
    allow_network: bool = False
    steady: SteadyOptions | None = None
    """Masks that are made steady, in place of the network's own labels."""

    @property
    def range_s(self) -> tuple[float | None, float | None]:
        """Start and end in seconds."""
        return self.start_s, self.end_s

    @property
    def decoding(self) -> dict[str, Any]:
        """Arguments of `open_frames`."""
        rate = {} if self.frame_rate is None else {"frame_rate": self.frame_rate}
        return {"start_s": self.start_s, "end_s": self.end_s, **rate}

    def inference_of(self, model: Known) -> InferenceOptions:
        """Complete options of inference; for masks of another program features alone are used, in mode ``steady``."""
        complete = checked_options(model, self.inference)
        return complete if self.steady is None else replace(complete, mode="steady")

    def places(self, source: Source) -> list[Path]:
        """Paths that are read, where no result may be written."""
        return [*source.places, *(self.steady.places if self.steady is not None else [])]

    def for_source(self, source: Source) -> RunOptions:
        """Return these options for ``source``; UsageError for options that cannot be used with it."""
        source.check()
        if self.steady is not None:
            self.steady.check()
            if source.is_live:
                raise UsageError(f"{source.name}: live video cannot be steadied; masks of later frames are needed")
        if self.frame_rate is not None and not source.is_images:
            raise UsageError(f"{source.name}: a video has its own frame rate; --fps is for folders of images")
        if self.resume and self.overwrite:
            raise UsageError("--resume continues what --overwrite removes; give only one of them")
        if self.resume and not source.is_on_disk:
            raise UsageError(
                f"{source.name}: a stream can be read only once and cannot be resumed; save it to a file first"
            )
        return replace(self, inference=replace(self.inference, latency="low")) if source.is_live else self
