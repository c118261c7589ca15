"""All that a run can be told, checked and in one piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tfcseg.errors import UsageError
from tfcseg.inference.options import InferenceOptions, checked_options
from tfcseg.media.ffmpeg import check_address, is_address
from tfcseg.runs.result_plan import ResultOptions
from tfcseg.weights.loading import LoadedModel, load_model


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `tfcseg.run`; what is None is the model's default."""

    mode: str = "tfc"
    keyframe_interval: int | None = None
    threshold: float | None = None
    size: int | None = None
    correlation: str | None = None
    keyframe_position: str | None = None
    keyframe_carry: float | None = None
    latency: str = "normal"
    start_s: float | None = None
    end_s: float | None = None
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    results: ResultOptions = field(default_factory=ResultOptions)
    overwrite: bool = False
    resume: bool = False
    allow_network: bool = False

    @property
    def range_s(self) -> tuple[float | None, float | None]:
        """From when to when."""
        return self.start_s, self.end_s

    def check(self, source: str | Path) -> None:
        """UsageError for what cannot be done with ``source``, whatever is in it."""
        check_address(source, allow_network=self.allow_network)
        if self.resume and self.overwrite:
            raise UsageError("--resume goes on with what --overwrite removes; give one of them")
        if self.resume and _is_read_once(source):
            raise UsageError(
                f"{source}: a stream can be read only once, so that it cannot be resumed; save it to a file"
            )

    def load(self, model: str | Path | LoadedModel) -> LoadedModel:
        """Network from a file or by name, unless it is loaded already."""
        if isinstance(model, LoadedModel):
            return model
        return load_model(model, device=self.device, precision=self.precision)

    def for_network(self, model: LoadedModel) -> InferenceOptions:
        """How frames go through ``model``; UsageError for values that make no sense."""
        return checked_options(
            model,
            mode=self.mode,
            keyframe_interval=self.keyframe_interval,
            threshold=self.threshold,
            size=self.size,
            correlation=self.correlation,
            keyframe_position=self.keyframe_position,
            keyframe_carry=self.keyframe_carry,
            latency=self.latency,
            compile=self.compile,
        )


def _is_read_once(source: str | Path) -> bool:
    path = Path(source)
    return str(source) == "-" or is_address(source) or (path.exists() and not path.is_file() and not path.is_dir())
