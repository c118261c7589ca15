"""Rows and numbers of the paper's ablation study. Does not load torch."""

from __future__ import annotations

from collections.abc import Mapping

WITHOUT_BCE = "without-bce"
"""The row that needs other weights."""

ABLATED_THRESHOLDS = (0.5, 0.8, 1.0)
FIXED_WEIGHTS = (0.1, 0.9)
"""The paper has 0.1 without saying of which frame. By eq. 7 it is the keyframe's weight; 0.9 is the other reading."""
INTERVALS = (4, 5, 6, 7, 8, 9)

OURS = ("aligned", "middle", "carry", "blend", "both-full-size", "both", "adaptive", "larger")
"""Rows that are not in the paper."""

LARGER_KEYFRAMES = 1.2
"""``keyframe_scale`` of the row ``larger``."""

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


def row_names() -> list[str]:
    """Names of all possible rows."""
    return [
        *("image", "reuse", "interpolation", "hard"),
        *(f"weight-{weight:.1f}" for weight in FIXED_WEIGHTS),
        *(f"msda-{threshold:.1f}" for threshold in ABLATED_THRESHOLDS),
        *("tfc", "level-1", WITHOUT_BCE),
        *(f"interval-{interval}" for interval in INTERVALS),
        *OURS,
    ]
