"""Numbers that define a model, and the paper's constants with their source."""

from __future__ import annotations

from dataclasses import dataclass

from tfcseg.model.options import PAPER_OPTIONS, InferenceOptions

NUM_LEVELS = 4
"""Encoder levels at strides 4, 8, 16 and 32 (eq. 1)."""

HEADS = 8
"""Of the deformable attention (Deformable DETR); the heads share the embedding width."""


EVIDENCE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""e(w) of a model without a fitted curve, at w = 0, 0.1, … 1 (model/evidence.py)."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything needed to build a network of the right shape, and its default options; stored in the weights file."""

    backbone: str
    embed_dim: int
    num_classes: int
    heads: int = HEADS
    points: int = 4
    ffn_dim: int = 1024
    defaults: InferenceOptions = PAPER_OPTIONS
    """Options that apply unless the user sets them; the input size is in the card's preprocessing."""
    evidence: tuple[float, ...] = EVIDENCE
    """e(w) at w = 0, 0.1, … 1: fitted to clips by ``tfcseg adapt``, else `EVIDENCE`."""
    things: tuple[int, ...] = ()
    """Classes of the second network's things, one each; without any there is no second network (model/things.py)."""
    doubted: tuple[int, ...] = ()
    """Those of ``things`` whose logits it may lower, and which weigh more."""
    rivals: tuple[int, ...] = ()
    """Classes that the second network only compares with things: what a thing gains, they lose."""
    repairs: bool = True
    """Whether sparse MSDA updates points (eq. 11). Other programs' weights come without it."""
