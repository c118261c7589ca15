"""Numbers that define a model, and the paper's constants with their source."""

from __future__ import annotations

from dataclasses import dataclass

from tfcseg.model.options import PAPER_OPTIONS, InferenceOptions

NUM_LEVELS = 4  # encoder levels at strides 4, 8, 16 and 32 (eq. 1)
HEADS = 8  # of the deformable attention (Deformable DETR); the heads share the embedding width

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
    defaults: InferenceOptions = PAPER_OPTIONS  # unless the user sets them; the size is in the card's preprocessing
    evidence: tuple[float, ...] = EVIDENCE  # e(w) at w = 0, 0.1, … 1; other curves are fitted by ``tfcseg adapt``
    things: tuple[int, ...] = ()  # classes of the second network's things (model/things.py); without any there is none
    doubted: tuple[int, ...] = ()  # those of ``things`` whose logits it may lower, and which weigh more
    rivals: tuple[int, ...] = ()  # classes that it only compares with things: what a thing gains, they lose
    repairs: bool = True  # whether sparse MSDA updates points (eq. 11); other programs' weights come without it
