"""Numbers that define a model, and the paper's constants with their source."""

from __future__ import annotations

from dataclasses import dataclass

KEYFRAME_INTERVAL = 4
"""Every 4th frame is a keyframe, in training and inference (paper, Schedule)."""

SIMILARITY_THRESHOLD = 0.8
"""Points whose similarity is below it are updated by sparse MSDA (eq. 11)."""

NUM_LEVELS = 4
"""Encoder levels at strides 4, 8, 16 and 32 (eq. 1)."""

SIZE_MULTIPLE = 32
"""Network inputs have sides that are multiples of the deepest stride."""

MODES = ("tfc", "reuse", "image")
"""``image``: every frame a keyframe. ``reuse``: eq. 4 alone. ``tfc``: eqs 4 to 11."""


CORRELATIONS = ("paper", "aligned")
"""``paper``: eq. 6 compares the same position. ``aligned``: the position's best match nearby (model/alignment.py)."""


KEYFRAME_POSITIONS = ("first", "middle")
"""Which frame of an interval is its keyframe. ``first``: the paper's, no frame waits for a later one. ``middle``: every
frame refers to the nearest keyframe, before or after it, which halves the distance at the price of waiting for it."""


LATENCIES = ("normal", "low")
"""``low``: every frame's labels come before the next frame is asked for, for live input."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything needed to build a network of the right shape; stored in the weights file."""

    backbone: str
    embed_dim: int
    num_classes: int
    heads: int = 8
    points: int = 4
    ffn_dim: int = 1024
    keyframe_interval: int = KEYFRAME_INTERVAL
    threshold: float = SIMILARITY_THRESHOLD
    correlation: str = "paper"
    keyframe_position: str = "first"
