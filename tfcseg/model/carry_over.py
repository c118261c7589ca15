"""Carry-over between keyframes (ours, not the paper's): a keyframe keeps what the previous one said, where they agree.

Within an interval the paper's labels hardly change, since every frame is interpolated with its keyframe. But each
keyframe is predicted from scratch, so nearly all flicker is left where intervals meet. Here a keyframe is interpolated
with the previous one as a non-keyframe is with its keyframe (eq. 7), by at most ``carry``, and only where eq. 11 would
call a point consistent:

    y'_k = y_k + g ⊙ (y'_{k-1} − y_k),   g = carry · clamp((w − threshold) / (1 − threshold), 0, 1)

with w of eq. 6 between the two keyframes, moved along if the correlation is aligned. What changed is predicted from
scratch at once, and so is the whole picture if less than ``SAME_SCENE`` of it is consistent, as after a cut. ``carry``
0 is the paper. Logits replace embeddings, since the classifier is linear.

Shapes: B keyframes, K classes, C channels, h w grid at stride 4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tfcseg.model.alignment import find_shift, move
from tfcseg.model.correlation import interpolate, similarity
from tfcseg.model.decode_head import resize

SAME_SCENE = 0.4
"""A keyframe shows another scene if its share of consistent points is below this. Measured with tfc-lite0, three frames
apart: 0.55 (a surfer, the camera swinging) to 1 within scenes, 0 to 0.02 across cuts, 0.2 to the same picture upside
down."""


class Carried(NamedTuple):
    """Carry-over for the next keyframe (B rows each)."""

    logits: Tensor
    """y'_k (B, K, h, w)."""
    match: Tensor
    """Level 2 as `Keyframe.match` (B, C, h/2, w/2): compared with the next keyframe's."""

    def last(self) -> Carried:
        """Copy of the last row, in its own memory."""
        return self if len(self.logits) == 1 else Carried(self.logits[-1:].clone(), self.match[-1:].clone())

    def fits(self, size: tuple[int, int]) -> bool:
        """Whether keyframes from images of ``size`` (H, W) can use it."""
        return (4 * self.logits.shape[-2], 4 * self.logits.shape[-1]) == size


class Carrying(NamedTuple):
    """How keyframes take over from earlier ones."""

    carry: float
    threshold: float
    aligned: bool


def carry_weight(w: Tensor, how: Carrying) -> Tensor:
    """Weight g for similarities w (B, 1, h, w): 0 up to the threshold, ``carry`` where features are equal."""
    is_same_scene = (w >= how.threshold).float().mean(dim=(1, 2, 3), keepdim=True) >= SAME_SCENE
    return how.carry * is_same_scene.to(w.dtype) * ((w - how.threshold) / max(1.0 - how.threshold, 1e-6)).clamp(0, 1)


def carry_over(current: Carried, before: Carried | None, how: Carrying) -> Tensor:
    """Logits y'_k (B, K, h, w) of B consecutive keyframes of one video, for y_k in ``current``.

    The first one follows ``before`` (one row), or stays unchanged without it. All similarities are computed at once;
    only then are the logits blended, one after the other.
    """
    if before is None:
        first = Carried(current.logits[:1], current.match[:1])
        rest = Carried(current.logits[1:], current.match[1:])
        return torch.cat([first.logits, carry_over(rest, first, how)]) if len(rest.logits) else first.logits
    _, _, h, w = current.logits.shape
    earlier = torch.cat([before.match, current.match[:-1]])
    shift = find_shift(earlier, current.match) if how.aligned else None
    moved = move(resize(earlier, (h, w)), None if shift is None else shift.rows, len(earlier))
    g = carry_weight(similarity(moved, resize(current.match, (h, w))), how)
    logits = []
    latest = before.logits
    for keyframe in range(len(g)):
        here, positions = slice(keyframe, keyframe + 1), slice(keyframe * h * w, (keyframe + 1) * h * w)
        rows = None if shift is None else shift.rows[positions] - positions.start
        latest = interpolate(move(latest, rows, 1), current.logits[here], g[here])
        logits.append(latest)
    return torch.cat(logits)
