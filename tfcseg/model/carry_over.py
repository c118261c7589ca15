"""Carry-over between keyframes (ours, not the paper's): a keyframe keeps what the one before it said, where they agree.

Within an interval the paper's labels hardly change: every frame leans on its keyframe. But each keyframe is predicted
afresh, and so nearly all flicker is left at the borders of intervals. Here a keyframe leans on the one before as a
non-keyframe leans on its keyframe (eq. 7), by ``carry`` at most and only where eq. 11 would call a point consistent:

    y'_k = y_k + g ⊙ (y'_{k-1} − y_k),   g = carry · clamp((w − threshold) / (1 − threshold), 0, 1)

with w of eq. 6 between the two keyframes, moved along if correlation is aligned. What changed is predicted anew at
once; so is the whole picture if less than ``SAME_SCENE`` of it is consistent, as after a cut. ``carry`` 0 is the paper.
Logits stand for embeddings, since the classifier is linear.

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
"""Share of consistent points below which a keyframe shows another scene. Measured with tfc-lite0, three frames apart:
0.55 (a surfer, the camera swinging) to 1 within scenes, 0 to 0.02 across cuts, 0.2 to the same picture upside down."""


class Carried(NamedTuple):
    """What a keyframe hands on to the next one (B rows each)."""

    logits: Tensor
    """y'_k (B, K, h, w)."""
    match: Tensor
    """Level 2 as `Keyframe.match` (B, C, h/2, w/2): what the next keyframe is compared with."""

    def last(self) -> Carried:
        """The last row alone, in memory of its own."""
        return self if len(self.logits) == 1 else Carried(self.logits[-1:].clone(), self.match[-1:].clone())

    def fits(self, size: tuple[int, int]) -> bool:
        """Whether keyframes from images of ``size`` (H, W) can take it over."""
        return (4 * self.logits.shape[-2], 4 * self.logits.shape[-1]) == size


class Carrying(NamedTuple):
    """How keyframes take over from those before."""

    carry: float
    threshold: float
    aligned: bool


def carry_weight(w: Tensor, how: Carrying) -> Tensor:
    """Weight g for similarities w (B, 1, h, w): 0 up to the threshold, ``carry`` where the features are the same."""
    is_same_scene = (w >= how.threshold).float().mean(dim=(1, 2, 3), keepdim=True) >= SAME_SCENE
    return how.carry * is_same_scene.to(w.dtype) * ((w - how.threshold) / max(1.0 - how.threshold, 1e-6)).clamp(0, 1)


def carry_over(current: Carried, before: Carried | None, how: Carrying) -> Tensor:
    """Logits y'_k (B, K, h, w) of B keyframes of one video in their order, for y_k in ``current``.

    The first follows ``before`` (one row), and is what it is without. All similarities are computed at once, and only
    then the logits blended one after the other.
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
