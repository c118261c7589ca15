"""Rows and numbers of the paper's ablation study. Does not load torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from tfcseg.model.options import PAPER_OPTIONS, InferenceOptions

WITHOUT_BCE = "without-bce"  # the row that needs other weights

ABLATED_THRESHOLDS = (0.5, 0.8, 1.0)
FIXED_WEIGHTS = (0.1, 0.9)
"""The paper has 0.1 without saying of which frame. By eq. 7 it is the keyframe's weight; 0.9 is the other reading."""
INTERVALS = (4, 5, 6, 7, 8, 9)

LARGER_KEYFRAMES = 1.2  # ``keyframe_scale`` of the row ``larger``

SCORES = ("miou", "vc8", "vc16")

PAPER: Mapping[str, Mapping[str, float | None]] = {
    "image": {"miou": 32.9, "vc8": 82.7, "vc16": 77.3},
    "reuse": {"miou": 31.5, "vc8": 84.3, "vc16": 78.7},
    "interpolation": {"miou": 32.0, "vc8": 85.0, "vc16": 79.3},
    "hard": {"miou": 32.0, "vc8": 83.7, "vc16": 78.0},
    "weight-0.1": {"miou": 31.0, "vc8": 85.9, "vc16": 80.5},
    "weight-0.9": {"miou": 31.0, "vc8": 85.9, "vc16": 80.5},
    "msda-0.5": {"miou": 31.9, "vc8": 84.3},
    "msda-0.8": {"miou": 32.7, "vc8": 84.2},
    "msda-1.0": {"miou": 33.8, "vc8": 79.0},
    "tfc": {"miou": 32.9, "vc8": 85.3, "vc16": 80.0},
    "level-1": {"miou": 31.6},
    WITHOUT_BCE: {"vc8": 83.1},
    "interval-5": {"miou": 32.9, "vc8": 85.8},
    "interval-6": {"miou": 32.8, "vc8": 85.8},
    "interval-7": {"miou": 32.7, "vc8": 86.0},
    "interval-8": {"miou": 32.6, "vc8": 86.4},
    "interval-9": {"miou": 32.4, "vc8": 86.6},
}
"""MiT-B0 trained on VSPW, on its validation split (AAAI 2024, ablation study), TFC at interval 4."""

Weight: TypeAlias = float | str
"""ŵ_t of eq. 7: ``soft`` (clamped w_t), ``hard`` (1 where w_t reaches the threshold, else 0), or one number for all."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Steps between eq. 4 and the class head; by default all of the paper's."""

    weight: Weight = "soft"  # 0 leaves out interpolation
    updates: bool = True  # whether sparse MSDA updates the points below the threshold (eq. 11)
    level: int = 2  # encoder level compared by w_t, 1 or 2. Aligned correlation always searches at level 2


@dataclass(frozen=True, slots=True)
class Row:
    """A way of computing frames between keyframes; without ``variant`` the network is unchanged."""

    name: str
    title: str
    builds_on: str | None  # row that its scores are compared with
    options: InferenceOptions
    variant: Variant | None


def build_rows(settings: InferenceOptions) -> list[Row]:
    """All rows for the ``settings`` of the full method, in the table's order."""
    larger = settings.keyframe_scale if settings.keyframe_scale > 1 else LARGER_KEYFRAMES
    image = replace(settings, mode="image", sides="one", keyframes="fixed", keyframe_interval=1)
    one_size = replace(image, half_size_share=0.0)
    options = replace(settings, sides="one", keyframes="fixed", keyframe_scale=1.0)
    plain = Variant(weight=0.0, updates=False)
    rows = [
        Row("image", "image", None, image, None),
        *([Row("one-size", "image, at one size", "image", one_size, None)] if image.half_size_share else []),
        Row("reuse", "feature reuse", "image", options, plain),
        Row("interpolation", "+ interpolation", "reuse", options, replace(plain, weight="soft")),
        Row("hard", "+ hard weights", "interpolation", options, replace(plain, weight="hard")),
    ]
    for weight in FIXED_WEIGHTS:
        fixed = replace(plain, weight=weight)
        rows.append(Row(f"weight-{weight:.1f}", f"+ weight {weight:.1f}", "interpolation", options, fixed))
    for threshold in ABLATED_THRESHOLDS:
        name, title = f"msda-{threshold:.1f}", f"reuse + MSDA below {threshold:.1f}"
        rows.append(Row(name, title, "reuse", replace(options, threshold=threshold), replace(plain, updates=True)))
    rows += [
        Row("tfc", "TFC", "interpolation", options, Variant()),
        Row("level-1", "TFC, w from level 1", "tfc", options, Variant(level=1)),
        Row(WITHOUT_BCE, "TFC without L_bce", "tfc", options, Variant()),
    ]
    for n in (n for n in INTERVALS if n > options.keyframe_interval):
        rows.append(Row(f"interval-{n}", f"TFC, interval {n}", "tfc", replace(options, keyframe_interval=n), Variant()))
    return rows + _own_rows(options, larger)


def _own_rows(options: InferenceOptions, scale: float) -> list[Row]:
    """Rows that are not in the paper, but change its ``options``; ``scale`` of larger keyframes."""
    aligned = replace(options, correlation="aligned")
    both = replace(options, sides="both")
    adaptive = replace(both, keyframes="adaptive")
    larger = replace(adaptive, keyframe_scale=scale)
    return [
        *([] if aligned == options else [Row("aligned", "TFC, aligned correlation", "tfc", aligned, Variant())]),
        Row("both", "TFC, both sides", "tfc", both, None),
        Row("adaptive", "TFC, both sides, adaptive keyframes", "both", adaptive, None),
        Row("larger", f"the same, keyframes {scale:g} times as large", "adaptive", larger, None),
        Row("past", "the same, only keyframes before a frame", "larger", replace(larger, sides="past"), None),
    ]


def row_names() -> list[str]:
    """Names of all possible rows."""
    settings = replace(PAPER_OPTIONS, keyframe_interval=min(INTERVALS) - 1, half_size_share=0.5)
    return [row.name for row in build_rows(settings)]
