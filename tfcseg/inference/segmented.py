"""A frame with what the network says about it: what rendering and writing get.

Letters: H W source image, h w grid of the logits (stride 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tfcseg.media.frames import Image
from tfcseg.model.carry_over import Carried


@dataclass(frozen=True, slots=True, eq=False)
class SegmentedFrame:
    """A frame and its labels."""

    index: int
    time_s: float
    image: Image
    """(H, W, 3) uint8 RGB, as decoded."""
    labels: NDArray[np.uint8]
    """(H, W) class indices."""
    is_keyframe: bool
    similarity: NDArray[np.float32] | None
    """w_t of eq. 6 (h, w); None at keyframes."""
    updated_fraction: float | None
    """Share of points updated by sparse MSDA (eq. 11); None at keyframes."""
    model_ms: float | None
    """None: the frame shows the picture of the one before, whose result it has; nothing was computed."""
    is_held: bool
    """The frame shows the picture of the one before: again in the source, or in place of one that cannot be read."""
    carried: Carried | None = None
    """What a run needs to go on after this frame, at the end of an interval; None from `tfcseg.segment`."""
