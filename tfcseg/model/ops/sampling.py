"""The inner sums of multi-scale deformable attention (eq. 10): bilinear samples of every level, weighted and summed.

Shapes: S maps in a level's stack, h_l w_l its grid, N points, M heads, d = D/M, L levels, P sampling points.

Corners of samples are rows of a table with weight attention × bilinear share, so a level is one embedding bag, and no
sampled vector is written to memory before it is summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_and_weigh(
    levels: Sequence[Tensor], rows: Sequence[Tensor], reference: Tensor, offsets: Tensor, weights: Tensor
) -> Tensor:
    """Eq. 10's inner sums: bilinear samples of every level, weighted and added up per head.

    levels: L value maps (S, h_l, w_l, M, d); rows: L tensors (N,), the map of a level's stack that a point samples;
    reference (N, L, 2) as (x, y) in 0…1 of the image; offsets (N, M, L, P, 2) as (x, y) in cells of the level; weights
    (N, M, L, P). Returns (N, D). Samples outside of a map are 0, as in Deformable DETR.
    """
    sums = []
    for index, (level, row) in enumerate(zip(levels, rows, strict=True)):
        height, width, heads, depth = level.shape[1:]
        x = (reference[:, index, 0] * width - 0.5)[:, None, None] + offsets[:, :, index, :, 0]
        y = (reference[:, index, 1] * height - 0.5)[:, None, None] + offsets[:, :, index, :, 1]
        indices, shares = _corners(level, row, x, y, weights[:, :, index])
        vectors = level.reshape(-1, depth)
        summed = F.embedding_bag(indices, vectors, mode="sum", per_sample_weights=shares.to(vectors.dtype))
        sums.append(summed.view(len(row), heads * depth))
    return sum(sums[1:], sums[0])


def _corners(level: Tensor, row: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of the level (S, h, w, M, d) that samples touch, as indices, and their shares.

    x, y (N, M, P) in cells, 0 at the centre of the first; weights (N, M, P). Both results are (N·M, 4·P).
    """
    height, width, heads = level.shape[1:4]
    first = row.int()[:, None, None] * (height * width * heads)
    first = first + torch.arange(heads, dtype=first.dtype, device=first.device)[:, None]
    columns = [(cell * heads, share) for cell, share in _neighbours(x, width)]
    lines = [(cell * (width * heads) + first, share * weights) for cell, share in _neighbours(y, height)]
    indices = torch.stack([line + column for line, _ in lines for column, _ in columns], dim=-1)
    shares = torch.stack([upper * left for _, upper in lines for _, left in columns], dim=-1)
    return indices.flatten(0, 1).flatten(1), shares.flatten(0, 1).flatten(1)


def _neighbours(position: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The cells before and after positions on an axis of ``size`` cells, int32, and their shares; 0 outside."""
    floor = position.floor()
    after = position - floor
    neighbours = []
    for step, share in ((0, 1 - after), (1, after)):
        cell = floor.int() + step
        inside = cell.clamp(0, size - 1)
        neighbours.append((inside, torch.where(inside == cell, share, 0)))
    return neighbours
