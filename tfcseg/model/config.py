"""Numbers that define a model, and the paper's constants with their source."""

from __future__ import annotations

from dataclasses import dataclass

KEYFRAME_INTERVAL = 4
"""Every 4th frame is a keyframe, in training and inference (paper, Schedule)."""

SIMILARITY_THRESHOLD = 0.8
"""Points whose similarity is below it are updated by sparse MSDA (eq. 11)."""

NUM_LEVELS = 4
"""Encoder levels at strides 4, 8, 16 and 32 (eq. 1)."""

HEADS = 8
"""Of the deformable attention (Deformable DETR); they share the embedding width among them."""

SIZE_MULTIPLE = 32
"""Network inputs have sides that are multiples of the deepest stride."""

MODES = ("tfc", "blend", "reuse", "image")
"""``image``: every frame a keyframe. ``reuse``: eq. 4 alone. ``tfc``: eqs 4 to 11. ``blend`` (ours): the full network
on every frame, then eqs 5 to 7; nothing is reused, so that nothing needs repair."""


CORRELATIONS = ("paper", "aligned")
"""``paper``: eq. 6 compares the same position. ``aligned``: the position's best match nearby (model/alignment.py)."""

MODE_VARIANTS = (
    "image",
    *(f"{mode}{suffix}" for mode in ("reuse", "blend", "tfc") for suffix in ("-paper", "-aligned", "")),
)
"""Modes by themselves and with a correlation of their own, from the plainest to the one that all is about."""


KEYFRAME_POSITIONS = ("first", "middle")
"""Which frame of an interval is its keyframe. ``first``: the paper's, no frame waits for a later one. ``middle``: every
frame refers to the nearest keyframe, before or after it, which halves the distance at the price of waiting for it."""


SIDES = ("one", "both")
"""Keyframes that frames refer to. ``one``: that of their interval (the paper). ``both``: those before and after."""

KEYFRAMES = ("fixed", "adaptive")
"""``fixed``: every n-th frame. ``adaptive``: where the scene has changed, at the latest every n-th frame."""

LONGEST_INTERVAL = 16
"""Of adaptive keyframes, if none is given."""

EVIDENCE = (0.0, 0.0, 0.0, 0.0, 0.14, 0.29, 0.43, 0.57, 0.71, 0.86, 1.0)
"""e(w) of a model that nothing was fitted for, at w = 0, 0.1, … 1."""

LATENCIES = ("normal", "low")
"""``low``: every frame's labels come before the next frame is asked for, for live input."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything needed to build a network of the right shape; stored in the weights file."""

    backbone: str
    embed_dim: int
    num_classes: int
    heads: int = HEADS
    points: int = 4
    ffn_dim: int = 1024
    keyframe_interval: int = KEYFRAME_INTERVAL
    threshold: float = SIMILARITY_THRESHOLD
    correlation: str = "paper"
    keyframe_position: str = "first"
    keyframe_carry: float = 0.0
    """How much of the keyframe before a keyframe keeps where both agree (model/carry_over.py); 0 is the paper."""
    evidence: tuple[float, ...] = EVIDENCE
    """How much more often than by chance positions of similarity 0 … 1 have one label (model/evidence.py)."""
