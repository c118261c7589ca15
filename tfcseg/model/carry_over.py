"""Carry-over between keyframes (ours, not the paper's): a keyframe keeps part of the previous one's logits.

Within an interval the paper's labels hardly change, since every frame is interpolated with its keyframe. But each
keyframe is predicted from scratch, so nearly all flicker is left where intervals meet. Here a keyframe is interpolated
with the previous one as a non-keyframe is with its keyframe (eq. 7), by at most ``carry``, and only where eq. 11 would
call a point consistent:

    y'_k = y_k + g ⊙ (y'_{k-1} − y_k),   g = carry · clamp((w − threshold) / (1 − threshold), 0, 1)

with w of eq. 6 between the two keyframes, moved along if the correlation is aligned. What changed is predicted from
scratch at once, and so is the whole picture if less than ``SAME_SCENE`` of it is consistent, as after a cut. ``carry``
0 is the paper. Logits replace embeddings, since the classifier is linear.

Shapes: K classes, C channels, h w grid at stride 4.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tfcseg.model.alignment import find_shift, move
from tfcseg.model.correlation import interpolate, similarity
from tfcseg.model.decode_head import resize

SAME_SCENE = 0.4
"""A keyframe shows another scene if its share of consistent points is below this. Measured with tfc-lite0, three frames
apart: 0.55 (a surfer, the camera swinging) to 1 within scenes, 0 to 0.02 across cuts, 0.2 to the same picture upside
down."""


class Carried(NamedTuple):
    """Carry-over for the next keyframe."""

    logits: Tensor
    """y'_k (1, K, h, w)."""
    match: Tensor
    """Level 2 as `Keyframe.match` (1, C, h/2, w/2): compared with the next keyframe's."""

    def fits(self, size: tuple[int, int]) -> bool:
        """Whether keyframes from images of ``size`` (H, W) can use it."""
        return (4 * self.logits.shape[-2], 4 * self.logits.shape[-1]) == size


class Carrying(NamedTuple):
    """How keyframes take over from earlier ones."""

    carry: float
    threshold: float
    aligned: bool


def carry_weight(w: Tensor, how: Carrying) -> Tensor:
    """Weight g for similarities w (1, 1, h, w): 0 up to the threshold, ``carry`` where features are equal."""
    is_same_scene = (w >= how.threshold).float().mean(dim=(1, 2, 3), keepdim=True) >= SAME_SCENE
    return how.carry * is_same_scene.to(w.dtype) * ((w - how.threshold) / max(1.0 - how.threshold, 1e-6)).clamp(0, 1)


def carry_over(current: Carried, before: Carried, how: Carrying) -> Tensor:
    """Logits y'_k (1, K, h, w) of a keyframe, for y_k in ``current``; ``before`` is of the previous one."""
    size = (current.logits.shape[-2], current.logits.shape[-1])
    earlier = before.match.contiguous()  # in another order of memory, the results of record would round differently
    shift = find_shift(earlier, current.match) if how.aligned else None
    rows = None if shift is None else shift.rows
    w = similarity(move(resize(earlier, size), rows, 1), resize(current.match, size))
    return interpolate(move(before.logits, rows, 1), current.logits, carry_weight(w, how))
