"""The options of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tfcseg.errors import UsageError
from tfcseg.media.ffmpeg import check_address, is_address
from tfcseg.model.options import InferenceOptions
from tfcseg.runs.result_options import ResultOptions
from tfcseg.weights.device import DeviceOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `tfcseg.run`."""

    inference: InferenceOptions = InferenceOptions()
    device: DeviceOptions = DeviceOptions()
    start_s: float | None = None
    end_s: float | None = None
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


def _is_read_once(source: str | Path) -> bool:
    path = Path(source)
    return str(source) == "-" or is_address(source) or (path.exists() and not path.is_file() and not path.is_dir())
