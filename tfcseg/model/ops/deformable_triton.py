"""The sampling of eq. 10 as one Triton kernel: all levels, samples and corners in a single launch, forward only.

Importing this file needs Triton, which comes with PyTorch's CUDA builds; `sampling.py` imports it only for a GPU.
Letters as there; K pairs of a point and a head make a tile. Positions, shares and sums are float32 whatever the type of
the maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from tfcseg.model.config import NUM_LEVELS

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Of the value maps."""
TILE = 1024
"""Numbers of the result that one program sums: 8 in each of 128 threads; in half precision a load of 16 bytes."""


@triton.jit
def _add_corner(
    total: tl.tensor,
    vectors: tl.tensor,
    line: tl.tensor,
    column: tl.tensor,
    share: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channel: tl.tensor,
    M: tl.constexpr,
    D: tl.constexpr,
) -> tl.tensor:
    """Total (K, d) plus ``share`` (K,) of the vectors at cells (line, column), both whole numbers (K,)."""
    inside = (line >= 0) & (line < height) & (column >= 0) & (column < width)
    # A position that is not finite has no cell, and its share may be NaN.
    cell = tl.where(inside, line, 0).to(tl.int64) * width + tl.where(inside, column, 0).to(tl.int64)
    mask = inside[:, None] & (channel < D)[None, :]
    vector = tl.load((vectors + cell * (M * D))[:, None] + channel[None, :], mask=mask, other=0)
    return total + tl.where(inside, share, 0)[:, None] * vector.to(tl.float32)


@triton.jit
def _add_level(
    total: tl.tensor,
    values: tl.tensor,
    rows: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    reference: tl.tensor,
    offsets: tl.tensor,
    weights: tl.tensor,
    pair: tl.tensor,
    count: tl.tensor,
    channel: tl.tensor,
    LEVEL: tl.constexpr,
    L: tl.constexpr,
    M: tl.constexpr,
    D: tl.constexpr,
    P: tl.constexpr,
) -> tl.tensor:
    """Total (K, d) plus the weighted samples of one level."""
    is_pair = pair < count * M
    point = pair // M
    row = tl.load(rows + point, mask=is_pair, other=0).to(tl.int64)
    vectors = values + (row * height * width * M + pair % M) * D
    center_x = tl.load(reference + (point * L + LEVEL) * 2, mask=is_pair, other=0) * width - 0.5
    center_y = tl.load(reference + (point * L + LEVEL) * 2 + 1, mask=is_pair, other=0) * height - 0.5
    for p in range(P):
        sample = (pair * L + LEVEL) * P + p
        x = center_x + tl.load(offsets + sample * 2, mask=is_pair, other=0).to(tl.float32)
        y = center_y + tl.load(offsets + sample * 2 + 1, mask=is_pair, other=0).to(tl.float32)
        weight = tl.load(weights + sample, mask=is_pair, other=0)
        left, top = tl.floor(x), tl.floor(y)
        lower, upper = (y - top) * weight, (1 - (y - top)) * weight
        after, before = x - left, 1 - (x - left)
        total = _add_corner(total, vectors, top, left, upper * before, height, width, channel, M, D)
        total = _add_corner(total, vectors, top, left + 1, upper * after, height, width, channel, M, D)
        total = _add_corner(total, vectors, top + 1, left, lower * before, height, width, channel, M, D)
        total = _add_corner(total, vectors, top + 1, left + 1, lower * after, height, width, channel, M, D)
    return total


@triton.jit(do_not_specialize=["count", "h1", "w1", "h2", "w2", "h3", "w3", "h4", "w4"])
def _kernel(
    v1: tl.tensor,
    v2: tl.tensor,
    v3: tl.tensor,
    v4: tl.tensor,
    r1: tl.tensor,
    r2: tl.tensor,
    r3: tl.tensor,
    r4: tl.tensor,
    h1: tl.tensor,
    w1: tl.tensor,
    h2: tl.tensor,
    w2: tl.tensor,
    h3: tl.tensor,
    w3: tl.tensor,
    h4: tl.tensor,
    w4: tl.tensor,
    reference: tl.tensor,
    offsets: tl.tensor,
    weights: tl.tensor,
    result: tl.tensor,
    count: tl.tensor,
    L: tl.constexpr,
    M: tl.constexpr,
    D: tl.constexpr,
    P: tl.constexpr,
    TILE_K: tl.constexpr,
    TILE_D: tl.constexpr,
) -> None:
    """Sum TILE_K pairs. Every argument except the sizes, the count N and the constants is a pointer."""
    pair = tl.program_id(0).to(tl.int64) * TILE_K + tl.arange(0, TILE_K)
    channel = tl.arange(0, TILE_D)
    total = tl.zeros((TILE_K, TILE_D), dtype=tl.float32)
    total = _add_level(total, v1, r1, h1, w1, reference, offsets, weights, pair, count, channel, 0, L, M, D, P)
    total = _add_level(total, v2, r2, h2, w2, reference, offsets, weights, pair, count, channel, 1, L, M, D, P)
    total = _add_level(total, v3, r3, h3, w3, reference, offsets, weights, pair, count, channel, 2, L, M, D, P)
    total = _add_level(total, v4, r4, h4, w4, reference, offsets, weights, pair, count, channel, 3, L, M, D, P)
    mask = (pair < count * M)[:, None] & (channel < D)[None, :]
    tl.store((result + pair * D)[:, None] + channel[None, :], total.to(result.dtype.element_ty), mask=mask)


def sample_and_weigh_maps(
    maps: Sequence[Tensor], rows: Sequence[Tensor], reference: Tensor, offsets: Tensor, weights: Tensor
) -> Tensor:
    """`sampling.sample_and_weigh` of four value maps of one of `DTYPES`, without gradients. Returns (N, D)."""
    count, heads, _, points, _ = offsets.shape
    depth = maps[0].shape[4]
    result = torch.empty(count, heads * depth, dtype=maps[0].dtype, device=maps[0].device)
    tile_d = triton.next_power_of_2(depth)
    tile_k = max(1, TILE // tile_d)
    sizes = [size for values in maps for size in values.shape[1:3]]
    with torch.cuda.device(result.device if result.is_cuda else -1):  # Triton launches on the current device
        _kernel[(triton.cdiv(count * heads, tile_k),)](
            *(values.contiguous() for values in maps),
            *(row.contiguous() for row in rows),
            *sizes,
            reference.float().contiguous(),
            offsets.contiguous(),
            weights.float().contiguous(),
            result,
            count,
            L=NUM_LEVELS,
            M=heads,
            D=depth,
            P=points,
            TILE_K=tile_k,
            TILE_D=tile_d,
        )
    return result
