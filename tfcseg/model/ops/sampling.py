"""The inner sums of multi-scale deformable attention (eq. 10): bilinear samples of every level, weighted and summed.

Shapes: S maps in a level's stack, h_l w_l its grid, C_l its channels, N points, M heads, d = D/M, L levels, P sampling
points.

Corners of samples are rows of a table with weight attention × bilinear share, so a level is one embedding bag, and no
sampled vector is written to memory before it is summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

INT32_MAX = 2**31 - 1

GATHER_COST = {4: 10, 2: 20}
"""Cost of adding a gathered number of this many bytes to a sum, in multiplications of a matrix product of that type."""
WRITE_COST = {4: 40, 2: 20}
"""Cost of a number of a value map beyond its product, in the same unit (both fitted to one core with AVX-512)."""


class UnprojectedLevel(NamedTuple):
    """A level whose values V x + b are computed after sampling, which saves its value map."""

    features: Tensor  # x_l (S, C_l, h_l, w_l); channels_last saves a copy
    weight: Tensor  # V (D, C_l), which may include preceding linear steps
    bias: Tensor  # b (D,)

    def is_cheaper(self, count: int, heads: int, points: int) -> bool:
        """Whether ``count`` points N cost less this way than with a value map, in operations on a CPU.

        A value map costs its product and writing D numbers per cell. Without it, every head gathers C_l numbers per
        sample instead of d. On a GPU a value map takes microseconds, less than the extra steps without it.
        """
        if self.features.is_cuda:
            return False
        stack, channels, height, width = self.features.shape
        dim = self.weight.shape[0]
        size = min(self.features.element_size(), 4)
        value_map = stack * height * width * dim * (channels + WRITE_COST[size])
        gathered_more = count * points * 4 * (channels * heads - dim) * GATHER_COST[size]
        return count * dim * channels + gathered_more < value_map


Level: TypeAlias = Tensor | UnprojectedLevel  # a value map (S, h_l, w_l, M, d), or the level it would be computed from


def sample_and_weigh(
    levels: Sequence[Level], rows: Sequence[Tensor], reference: Tensor, offsets: Tensor, weights: Tensor
) -> Tensor:
    """Eq. 10's inner sums: bilinear samples of every level, weighted and added up per head.

    rows: L tensors (N,), the map of a level's stack that a point samples; reference (N, L, 2) as (x, y) in 0…1 of the
    image; offsets (N, M, L, P, 2) as (x, y) in cells of the level; weights (N, M, L, P). Returns (N, D). Samples
    outside of a map are 0, as in Deformable DETR.
    """
    sums = []
    for index, (level, row) in enumerate(zip(levels, rows, strict=True)):
        height, width = level.features.shape[2:] if isinstance(level, UnprojectedLevel) else level.shape[1:3]
        x = (reference[:, index, 0] * width - 0.5)[:, None, None] + offsets[:, :, index, :, 0]
        y = (reference[:, index, 1] * height - 0.5)[:, None, None] + offsets[:, :, index, :, 1]
        sums.append(_sample_level(level, row, x, y, weights[:, :, index]))
    return sum(sums[1:], sums[0]).flatten(1)


def _sample_level(level: Level, row: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """x, y (N, M, P) in cells, 0 at the centre of the first; returns (N, M, d)."""
    count, heads, _ = x.shape
    if isinstance(level, UnprojectedLevel):
        cells = level.features.permute(0, 2, 3, 1)  # (S, h, w, C)
        indices, shares = _corners(cells, row, x, y, weights)
        summed = _sum_rows(cells, indices, shares).view(count, heads, cells.shape[3])
        inside = shares.sum(1).to(summed.dtype).view(count, heads, 1)
        by_head = level.weight.view(heads, -1, level.weight.shape[1])  # (M, d, C)
        values = torch.bmm(summed.transpose(0, 1), by_head.transpose(1, 2))  # (M, N, d)
        return torch.addcmul(values.transpose(0, 1), inside, level.bias.view(heads, -1))
    indices, shares = _corners(level, row, x, y, weights)
    return _sum_rows(level, indices, shares).view(count, heads, level.shape[4])


def _corners(table: Tensor, row: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of the table (S, h, w[, M], ·) that samples touch, as indices, and their shares.

    x, y, weights (N, M, P). Both results are (N·M, 4·P).
    """
    stack, height, width = table.shape[:3]
    per_cell = table.shape[3] if table.ndim == 5 else 1
    is_small = stack * height * width * per_cell <= INT32_MAX  # half the bytes, and enough for most maps
    first = row.to(torch.int32 if is_small else torch.int64)[:, None, None] * (height * width * per_cell)
    if per_cell > 1:
        first = first + torch.arange(per_cell, dtype=first.dtype, device=first.device)[:, None]
    columns = [(cell * per_cell, share) for cell, share in _neighbours(x, width)]
    lines = [(cell * (width * per_cell) + first, share * weights) for cell, share in _neighbours(y, height)]
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


def _sum_rows(table: Tensor, indices: Tensor, shares: Tensor) -> Tensor:
    """Weighted sums of the table's last axis: indices, shares (bags, vectors per bag) → (bags, ·)."""
    rows = table.reshape(-1, table.shape[-1])
    return F.embedding_bag(indices, rows, mode="sum", per_sample_weights=shares.to(rows.dtype))
