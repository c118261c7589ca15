"""Options of an adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tfcseg.model.options import SIZE_MULTIPLE
from tfcseg.options import THE_MODELS, Option


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """Options of an adaptation."""

    size: Annotated[int, Option("Short side of the network's input, in pixels.", low=SIZE_MULTIPLE, high=4096)] = (
        THE_MODELS
    )
    steps: Annotated[
        int, Option("Training steps of the sparse attention; 0 fits the curve alone.", low=0, high=1_000_000)
    ] = 300
    seed: Annotated[int, Option("Random seed.", low=0, high=2**31 - 1)] = 0
