"""Rows of the ablation table: what each leaves out or changes, and the row it builds on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tfcseg.errors import UsageError
from tfcseg.model.options import InferenceOptions
from tfcseg.research.ablation.network import Variant
from tfcseg.research.ablation.paper import ABLATED_THRESHOLDS, FIXED_WEIGHTS, INTERVALS, WITHOUT_BCE, row_names
from tfcseg.spelling import hint


@dataclass(frozen=True, slots=True)
class Row:
    """A way of computing frames between keyframes; without ``variant`` the network is unchanged."""

    name: str
    title: str
    builds_on: str | None
    """Row that its scores are compared with."""
    options: InferenceOptions
    variant: Variant | None

    @property
    def is_full_method(self) -> bool:
        """Whether no step is left out, so that its similarities are worth measuring."""
        return self.variant is not None and self.variant.updates and self.variant.weight == "soft"


def check_rows(names: Sequence[str], *, has_other_weights: bool) -> None:
    """Raise UsageError unless ``names`` are rows of the table."""
    known = row_names()
    for name in names:
        if name not in known:
            raise UsageError(f"no row {name!r}; {hint(name, known)}")
    if not names:
        raise UsageError(f"no row is given; there are {', '.join(known)}")
    if len(set(names)) < len(names):
        raise UsageError(f"a row is named twice: {','.join(names)}")
    if WITHOUT_BCE in names and not has_other_weights:
        raise UsageError(f"row {WITHOUT_BCE} needs weights trained without L_bce; give them with --without-bce")


def build_rows(settings: InferenceOptions) -> list[Row]:
    """All rows for the ``settings`` of the full method, in the table's order.

    Keyframes carry over results only in row ``carry`` and in rows with both sides, since this would hide other effects.
    """
    settings = replace(settings, sides="one", keyframes="fixed")
    options = replace(settings, keyframe_carry=0.0)
    return [*_rows_of_steps(options), *_rows_of_intervals(options), *_own_rows(settings, options)]


def _rows_of_steps(options: InferenceOptions) -> list[Row]:
    """Rows with steps of the method left out or replaced."""
    plain = Variant(weight=0.0, updates=False)
    rows = [
        Row("image", "image", None, replace(options, mode="image", keyframe_interval=1), None),
        Row("reuse", "feature reuse", "image", options, plain),
        Row("interpolation", "+ interpolation", "reuse", options, replace(plain, weight="soft")),
        Row("hard", "+ hard weights", "interpolation", options, replace(plain, weight="hard")),
    ]
    rows += [
        Row(f"weight-{weight:.1f}", f"+ weight {weight:.1f}", "interpolation", options, replace(plain, weight=weight))
        for weight in FIXED_WEIGHTS
    ]
    rows += [
        Row(
            f"msda-{threshold:.1f}",
            f"reuse + MSDA below {threshold:.1f}",
            "reuse",
            replace(options, threshold=threshold),
            replace(plain, updates=True),
        )
        for threshold in ABLATED_THRESHOLDS
    ]
    return [
        *rows,
        Row("tfc", "TFC", "interpolation", options, Variant()),
        Row("level-1", "TFC, w from level 1", "tfc", options, Variant(level=1)),
        Row(WITHOUT_BCE, "TFC without L_bce", "tfc", options, Variant()),
    ]


def _rows_of_intervals(options: InferenceOptions) -> list[Row]:
    """Rows with the full method at longer intervals."""
    longer = [interval for interval in INTERVALS if interval > options.keyframe_interval]
    changed = [replace(options, keyframe_interval=interval) for interval in longer]
    return [
        Row(f"interval-{own.keyframe_interval}", f"TFC, interval {own.keyframe_interval}", "tfc", own, Variant())
        for own in changed
    ]


def _own_rows(settings: InferenceOptions, options: InferenceOptions) -> list[Row]:
    """Rows that are not in the paper, except those with the ``options`` of all rows."""
    ours = {
        "aligned": ("TFC, aligned correlation", replace(options, correlation="aligned")),
        "middle": ("TFC, middle keyframes", replace(options, keyframe_position="middle")),
        "carry": (f"TFC, keyframes carry {settings.keyframe_carry:g}", settings),
    }
    rows = [Row(name, title, "tfc", own, Variant()) for name, (title, own) in ours.items() if own != options]
    both = replace(options, sides="both")
    adaptive = replace(both, keyframes="adaptive")
    return [
        *rows,
        Row("blend", "image + interpolation", "image", replace(options, mode="blend"), None),
        Row("both-full-size", "TFC, both sides, all at full size", "tfc", replace(both, mode="blend"), None),
        Row("both", "TFC, both sides", "both-full-size", both, None),
        Row("adaptive", "TFC, both sides, adaptive keyframes", "both", adaptive, None),
    ]
