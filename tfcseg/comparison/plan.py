"""The plan of a comparison: modes, and another program's masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of the network over the data."""

    mode: str
    """One of ``MODE_VARIANTS``, and the folder of its results, below the comparison's."""
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
        kept = {run.options: run.mode for run in self.runs(model)}
        names = set(kept.values())
        return replace(self, modes=[mode for mode in self.modes if mode in names or mode not in self.network_modes])

    def runs(self, model: LoadedModel) -> list[Run]:
        """Runs of the plan, one per mode."""
        return [Run(mode, variant_options(model, mode, self.inference)) for mode in self.network_modes]

    def to_json(self, runs: Sequence[Run]) -> dict[str, Any]:
        """Return what was compared, with the options that the model filled in."""
        used = asdict(runs[-1].options)
        del used["mode"]
        return {
            "modes": list(self.shown_modes),
            **used,
            "baseline": None if self.baseline is None else str(self.baseline),
            "flow_consistency": self.flow_consistency,
        }


def titles_of(modes: Iterable[str], baseline: object) -> dict[str, str]:
    """Titles of ``modes``: their names, but that of the baseline, if there is one, in place of ``image``."""
    return {mode: BASELINE if mode == "image" and baseline is not None else mode for mode in modes}


def known_folders(folder: Path) -> list[str]:
    """Folders below ``folder`` that any earlier comparison may have made."""
    return sorted(name for name in (BASELINE, *MODE_VARIANTS) if (folder / name).is_dir())
