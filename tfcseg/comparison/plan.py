"""The plan of a comparison: modes, keyframe intervals, and another program's masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tfcseg.comparison import DEFAULT_MODES
from tfcseg.errors import UsageError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.groups import Group
from tfcseg.inference.intervals import run_intervals
from tfcseg.inference.options import check_variants, variant_options
from tfcseg.media.frames import Image
from tfcseg.model.options import MODE_VARIANTS, InferenceOptions
from tfcseg.weights.loading import LoadedModel

MAX_SAMPLE = 32
"""Frames of an interval for warming up and counting FLOPs; bounds memory for any interval."""

BASELINE = "baseline"
"""Folder for the scores of another program's masks."""

_FOLDER = re.compile(rf"{BASELINE}|({'|'.join(MODE_VARIANTS)})(_interval_[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of the network over the data; ``folder`` is where its results go, below the comparison's."""

    folder: str
    mode: str
    """One of ``MODE_VARIANTS``."""
    options: InferenceOptions

    def warm_up(self, model: LoadedModel, images: Sequence[Image]) -> None:
        """Run the network on the beginning of an interval, so that first-time costs are not measured."""
        first = images[: min(MAX_SAMPLE, self.options.keyframe_interval)]
        for _ in run_intervals(IntervalNetwork(model, self.options), [Group(first, None)]):
            pass


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs to compare. Raises UsageError for options that make no sense."""

    modes: Sequence[str] = DEFAULT_MODES
    intervals: Sequence[int] = ()
    """Keyframe intervals of the page's plot, besides that of ``inference``."""
    baseline: str | Path | None = None
    """Masks of another program, which replace mode ``image``."""
    inference: InferenceOptions = InferenceOptions()
    """Options of all modes, except the mode itself and a correlation that its name fixes."""
    flow_consistency: bool = True
    """Measure flow consistency, which needs optical flow."""

    def __post_init__(self) -> None:
        check_variants(self.modes, self.inference)
        if not self.network_modes:
            raise UsageError("the baseline replaces mode 'image'; name another mode to compare it with")
        if any(not 1 <= interval <= 1000 for interval in self.intervals):
            raise UsageError(f"keyframe intervals are from 1 to 1000, not {','.join(map(str, self.intervals))}")
        if self.intervals and set(self.network_modes) == {"image"}:
            raise UsageError("mode 'image' has no keyframe intervals to plot; add tfc to the modes")

    @property
    def network_modes(self) -> tuple[str, ...]:
        """Modes that the network runs, in the order of the result."""
        return tuple(
            mode for mode in MODE_VARIANTS if mode in self.modes and (mode != "image" or self.baseline is None)
        )

    @property
    def pair(self) -> tuple[str, str]:
        """(reference, candidate), for ratios and pictures; the same mode twice if there is only one."""
        return self.shown_modes[0], self.shown_modes[-1]

    @property
    def shown_modes(self) -> tuple[str, ...]:
        """Modes of the result: the reference first, the candidate last."""
        return self.network_modes if self.baseline is None else ("image", *self.network_modes)

    def without_doubles(self, model: LoadedModel) -> Plan:
        """The plan without duplicate runs: ``tfc-paper`` is dropped if ``tfc`` uses the paper's correlation anyway."""
        kept = {self._options(model, mode): mode for mode in self.network_modes}
        names = set(kept.values())
        return replace(self, modes=[mode for mode in self.modes if mode in names or mode not in self.network_modes])

    def folders(self) -> list[str]:
        """Folders that any of the runs may write to."""
        extra = [_folder(mode, interval) for mode in self._modes_with_memory() for interval in self.intervals]
        return [*self.network_modes, *extra]

    def runs(self, model: LoadedModel) -> list[Run]:
        """Runs of the plan: one per mode, then those that only the plot needs."""
        main = [Run(mode, mode, self._options(model, mode)) for mode in self.network_modes]
        done = {(run.mode, run.options.keyframe_interval) for run in main}
        extra = [
            Run(_folder(mode, interval), mode, self._options(model, mode, interval))
            for mode in self._modes_with_memory()
            for interval in sorted(set(self.intervals))
            if (mode, interval) not in done
        ]
        return main + extra

    def to_json(self, runs: Sequence[Run]) -> dict[str, Any]:
        """Return what was compared, with the options that the model filled in."""
        used = asdict(runs[len(self.network_modes) - 1].options)
        del used["mode"]
        return {
            "modes": list(self.shown_modes),
            **used,
            "intervals": sorted(set(self.intervals)),
            "baseline": None if self.baseline is None else str(self.baseline),
            "flow_consistency": self.flow_consistency,
        }

    def _modes_with_memory(self) -> list[str]:
        return [mode for mode in self.network_modes if mode != "image"]

    def _options(self, model: LoadedModel, name: str, interval: int | None = None) -> InferenceOptions:
        own = {} if interval is None else {"keyframe_interval": interval}
        return variant_options(model, name, self.inference, **own)


def known_folders(folder: Path) -> list[str]:
    """Folders below ``folder`` that any earlier comparison may have made."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and _FOLDER.fullmatch(path.name))
    except OSError:  # it does not exist; failures to list it show up when writing
        return []


def _folder(mode: str, interval: int) -> str:
    return f"{mode}_interval_{interval}"
