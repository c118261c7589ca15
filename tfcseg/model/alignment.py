"""Aligned correlation (ours, not the paper's): compare with the keyframe where the scene *moved to*.

The paper compares the same position in keyframe and current frame, so a moving camera makes everything inconsistent.
Here every position first looks for its best match among the keyframe's low-level features within REACH cells at
stride 8, and what is taken from the keyframe is taken from there. No optical flow, no parameters of its own.

Shapes: B keyframes, T frames per keyframe, C channels, h8 w8 grid at stride 8, h w grid at stride 4, S = 2·REACH + 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tfcseg.model.correlation import per_frame

REACH = 8
"""Cells at stride 8: 64 px of the network's input in every direction within one interval."""

DISTANCE_PENALTY = 0.004
"""Cosine that a match must gain per cell of distance: without it, flat regions would wander."""


class Shift(NamedTuple):
    """Where each position of the current frames lies in its keyframe."""

    rows: Tensor
    """(B·T·h·w,) row of the keyframes' (B·h·w) positions."""
    cells: Tensor
    """(B·T, 2, h, w) displacement (y, x) in cells at stride 4."""


@torch.no_grad()
def find_shift(keyframe: Tensor, current: Tensor, size: tuple[int, int]) -> Shift | None:
    """Best match of each position; None if nothing moved.

    keyframe (B, C, h8, w8), current (B·T, C, h8, w8): level 2, any vectors whose cosines mean likeness; ``size`` is
    (h, w). Matches are whole cells at stride 8, refined to stride 4 by a parabola where something moved. Not
    differentiable: training sees the features that were moved, not the choice.
    """
    volume = match_scores(F.normalize(keyframe, dim=1), F.normalize(current, dim=1))
    cells = refine(volume, volume.argmax(dim=1))
    if not cells.any():
        return None
    cells = F.interpolate(cells, size=size, mode="bilinear", align_corners=False).round().long()
    return Shift(_rows(cells, keyframe.shape[0]), cells)


def match_scores(keyframe: Tensor, current: Tensor) -> Tensor:
    """Likeness (B·T, S·S, h8, w8) of each position with the S·S around it in the keyframe.

    Both normalised. Cosines are averaged over 3×3 positions, less DISTANCE_PENALTY per cell of distance. Outside of the
    keyframe the cosine is 0.
    """
    batch, channels, h, w = keyframe.shape
    frames, side = current.shape[0], 2 * REACH + 1
    padded = F.pad(keyframe, (REACH,) * 4).permute(0, 2, 3, 1)  # (B, h + 2R, w + 2R, C)
    rows = current.view(batch, -1, channels, h, w).permute(0, 3, 1, 4, 2).reshape(batch * h, -1, channels)
    scores = current.new_empty(frames, side, side, h, w)
    for dy in range(side):
        # One product per line: all positions of a line of T frames against the keyframe's line dy - R below it.
        line = padded[:, dy : dy + h].reshape(batch * h, w + 2 * REACH, channels)
        product = torch.bmm(rows, line.transpose(1, 2)).view(batch, h, -1, w, w + 2 * REACH)
        # Of each row x of the product only columns x … x + 2R are near: a band beside the diagonal.
        strides = product.stride()
        band = product.as_strided((*product.shape[:4], side), (*strides[:3], strides[3] + strides[4], strides[4]))
        scores[:, dy] = band.permute(0, 2, 4, 1, 3).reshape(frames, side, h, w)
    smooth = F.avg_pool2d(scores.view(frames, -1, h, w), 3, stride=1, padding=1)
    offsets = torch.arange(-REACH, REACH + 1, device=current.device, dtype=current.dtype)
    distance = torch.hypot(*torch.meshgrid(offsets, offsets, indexing="ij")).view(1, -1, 1, 1)
    return smooth - DISTANCE_PENALTY * distance


def refine(volume: Tensor, best: Tensor) -> Tensor:
    """Displacement (B·T, 2, h8, w8) in cells at stride 4 of the ``best`` (B·T, h8, w8) of S·S scores.

    A parabola through the best score and its neighbours places moving positions to a half cell. What did not move by a
    whole cell stays where it is: there, a lopsided score is texture and not motion.
    """
    side = 2 * REACH + 1
    y, x = best // side, best % side
    still = (y == REACH) & (x == REACH)
    parts = []
    for offset, stride in ((y, side), (x, 1)):
        inner = (offset > 0) & (offset < side - 1) & ~still
        here, step = best.unsqueeze(1), stride * inner.long().unsqueeze(1)
        low, mid, high = (volume.gather(1, here + sign * step) for sign in (-1, 0, 1))
        curve = (low - 2 * mid + high).clamp(max=-1e-6)
        fraction = (0.5 * (low - high) / curve).clamp(-0.5, 0.5).squeeze(1)
        parts.append((2 * (offset - REACH + fraction * inner)).round())
    return torch.stack(parts, dim=1).to(volume.dtype)


def move(keyframe: Tensor, shift: Shift | None, frames: int) -> Tensor:
    """A keyframe's map (B, C, h, w) as seen from its frames (frames, C, h, w): each position from where it was."""
    if shift is None:
        return per_frame(keyframe, frames)
    _, channels, h, w = keyframe.shape
    rows = keyframe.permute(0, 2, 3, 1).reshape(-1, channels)
    return rows.index_select(0, shift.rows).view(frames, h, w, channels).permute(0, 3, 1, 2)


def _rows(cells: Tensor, batch: int) -> Tensor:
    """Row of each position's match among the (B·h·w) positions of the keyframes, kept inside the picture."""
    frames, _, h, w = cells.shape
    y = (torch.arange(h, device=cells.device)[:, None] + cells[:, 0]).clamp(0, h - 1)
    x = (torch.arange(w, device=cells.device) + cells[:, 1]).clamp(0, w - 1)
    interval = torch.arange(frames, device=cells.device)[:, None, None] // (frames // batch)
    return ((interval * h + y) * w + x).flatten()
