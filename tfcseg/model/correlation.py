"""Temporal feature correlation: eqs 5 to 7 and the point selection of eq. 11, as functions of tensors.

Shapes: B keyframes, T frames per keyframe, D width, h w grid at stride 4. Tensors of current frames have B·T rows,
grouped by keyframe; a keyframe's tensors have B rows and serve all its frames.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Points(NamedTuple):
    """N positions of a stack of maps: row of the stack, y and x on the grid, each (N,) int64."""

    frame: Tensor
    y: Tensor
    x: Tensor


def per_frame(keyframe: Tensor, frames: int) -> Tensor:
    """(B, …) tensor of keyframes → (frames, …), each row repeated for the frames of its interval (no copy if B = 1)."""
    batch = keyframe.shape[0]
    if batch == frames:
        return keyframe
    if batch == 1:
        return keyframe.expand(frames, *keyframe.shape[1:])
    return keyframe.repeat_interleave(frames // batch, dim=0)


def similarity(keyframe: Tensor, current: Tensor) -> Tensor:
    """Eqs 5 and 6: w_t = cos(x̂2_k, x̂2_t) per position.

    Both (B·T, D, h, w), level 2 projected to D and resized to stride 4. Returns (B·T, 1, h, w) in [-1, 1].
    """
    # F.cosine_similarity would write both normalised maps before multiplying them.
    norms = [torch.linalg.vector_norm(x, dim=1).clamp_min(1e-6) for x in (keyframe, current)]
    cosines: Tensor = (keyframe * current).sum(dim=1) / (norms[0] * norms[1])
    return cosines.unsqueeze(1)


def interpolation_weight(w: Tensor) -> Tensor:
    """ŵ_t = clamp(w_t, 0, 1) (below eq. 7)."""
    return w.clamp(0, 1)


def interpolate(z_k: Tensor, z_t: Tensor, w_hat: Tensor) -> Tensor:
    """Eq. 7: z'_t = ŵ_t ⊙ z_k + (1 − ŵ_t) ⊙ z_t.

    Any maps or vectors of equal shapes; w_hat has one channel. A lerp keeps equal values bit-identical, whatever the
    weight.
    """
    return torch.lerp(z_t, z_k, w_hat)


def inconsistent_points(w: Tensor, threshold: float) -> Points:
    """Points with (w_t)_q < threshold (eq. 11); w is (B·T, 1, h, w)."""
    frame, y, x = (w[:, 0] < threshold).nonzero(as_tuple=True)
    return Points(frame, y, x)
