"""Multi-scale deformable attention (eqs 8 to 10) and its sparse use (eq. 11).

Shapes: S maps in a stack, N points, D width, M heads, d = D/M, L = 4 levels, P sampling points, h_l w_l grids.

The sparse form gathers: queries, offsets, weights and samples exist for the N inconsistent points only. A mask over a
dense computation would cost more than the backbone stages that it replaces (method.md, *Speed*).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfcseg.model.config import NUM_LEVELS
from tfcseg.model.correlation import Points


def sample_and_weigh(values: Sequence[Tensor], rows: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """Eq. 10's inner sums: bilinear samples of every level, weighted and added up per head.

    values: L maps (S_l, h_l, w_l, M, d); rows: L tensors (N,), which of a level's S_l maps a point samples;
    locations (N, M, L, P, 2) as (x, y) in 0…1 of the image; weights (N, M, L, P). Returns (N, M·d).
    Samples outside of a map are 0, as in Deformable DETR.

    One table and one embedding bag: the four corners of every sample are rows of the table with weight
    attention × bilinear share, so no sampled vector is ever written to memory before it is added up.
    """
    heads, depth = values[0].shape[-2:]
    head = torch.arange(heads, device=locations.device)[:, None]  # (M, 1)
    indices, shares = [], []
    first = 0
    for level, (value, row) in enumerate(zip(values, rows, strict=True)):
        height, width = value.shape[1:3]
        x = locations[:, :, level, :, 0] * width - 0.5  # (N, M, P), in cells of this level
        y = locations[:, :, level, :, 1] * height - 0.5
        left, top = x.floor(), y.floor()
        right_share, bottom_share = x - left, y - top
        for dy in (0, 1):
            for dx in (0, 1):
                column, line = (left + dx).long(), (top + dy).long()
                inside = (column >= 0) & (column < width) & (line >= 0) & (line < height)
                share = (right_share if dx else 1 - right_share) * (bottom_share if dy else 1 - bottom_share)
                cell = (row[:, None, None] * height + line.clamp(0, height - 1)) * width + column.clamp(0, width - 1)
                indices.append(first + cell * heads + head)
                shares.append(share * inside * weights[:, :, level])
        first += value.shape[0] * height * width * heads
    table = torch.cat([value.reshape(-1, depth) for value in values])
    bags = torch.stack(indices, dim=-1).flatten(0, 1).flatten(1)  # (N·M, P·4·L)
    bag_weights = torch.stack(shares, dim=-1).flatten(0, 1).flatten(1).to(table.dtype)
    summed = F.embedding_bag(bags, table, mode="sum", per_sample_weights=bag_weights)
    return summed.view(-1, heads * depth)


class DeformableAttention(nn.Module):
    """Eqs 8 to 10: sampling offsets and attention weights linear in the query, values from all four levels."""

    def __init__(self, embed_dim: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads = heads
        self.points = points
        self.offsets = nn.Linear(embed_dim, heads * NUM_LEVELS * points * 2)
        self.weights = nn.Linear(embed_dim, heads * NUM_LEVELS * points)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)
        self._init_parameters()

    def project_value(self, projected: Tensor) -> Tensor:
        """Value map of a level: x̂_l (S, D, h_l, w_l) → (S, h_l, w_l, M, d).

        Eq. 10 projects the raw levels, which have different widths; one matrix needs one width, so the values come
        from the D-wide projected levels x̂_l (method.md, *Values of MSDA*).
        """
        return self.split_heads(self.value(projected.permute(0, 2, 3, 1)))

    def split_heads(self, value: Tensor) -> Tensor:
        """(S, h_l, w_l, D) → (S, h_l, w_l, M, d), a view."""
        return value.reshape(*value.shape[:-1], self.heads, -1)

    def forward(self, query: Tensor, reference: Tensor, values: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Attend from query (N, D) at reference (N, L, 2), (x, y) in 0…1; values and rows as in `sample_and_weigh`.

        Returns (N, D).
        """
        count = query.shape[0]
        offsets = self.offsets(query).view(count, self.heads, NUM_LEVELS, self.points, 2)
        weights = self.weights(query).view(count, self.heads, NUM_LEVELS * self.points).softmax(-1)
        sizes = torch.tensor([(v.shape[2], v.shape[1]) for v in values], device=query.device)  # (L, 2) as (w, h)
        # At least float32 from here: half precision cannot tell neighbouring cells of a wide map apart.
        precise = torch.promote_types(query.dtype, torch.float32)
        locations = reference[:, None, :, None].to(precise) + offsets.to(precise) / sizes[:, None]
        weights = weights.view(count, self.heads, NUM_LEVELS, self.points)
        output: Tensor = self.output(sample_and_weigh(values, rows, locations, weights))
        return output

    def _init_parameters(self) -> None:
        """Heads look in M directions, their points 1…P cells far, with equal weight (Deformable DETR)."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.points + 1)
        grid = directions[:, None, None, :] * distances[None, None, :, None]  # (M, 1, P, 2)
        nn.init.zeros_(self.offsets.weight)
        with torch.no_grad():
            self.offsets.bias.copy_(grid.expand(-1, NUM_LEVELS, -1, -1).flatten())
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        nn.init.xavier_uniform_(self.value.weight)
        nn.init.zeros_(self.value.bias)


class SparseUpdate(nn.Module):
    """The layer that repairs inconsistent points: MSDA and FFN, each with a residual (0.76 M parameters at D 256).

    The paper gives only a parameter count (+0.7 M); MSDA + FFN(1024) + two norms, a standard deformable transformer
    layer, is the reading taken in method.md (*Parameters*). The norms stand before the sub-layers and both output
    layers start at zero: the untrained layer is the identity, so the shared classifier is right from the first step.
    """

    def __init__(self, embed_dim: int, heads: int, points: int, ffn_dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = DeformableAttention(embed_dim, heads, points)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.ffn_in = nn.Linear(embed_dim, ffn_dim)
        self.ffn_out = nn.Linear(ffn_dim, embed_dim)
        for last in (self.attention.output, self.ffn_out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self,
        z: Tensor,
        points: Points,
        values: Sequence[Tensor],
        rows: Sequence[Tensor],
        shift: Tensor | None = None,
    ) -> Tensor:
        """Eq. 11: z (S, D, h, w) with its N ``points`` updated, all others untouched. Returns (S, D, h, w).

        ``shift`` (S, 2, h, w) are displacements (y, x) in cells of z: where a position lies in the keyframe, whose
        levels 3 and 4 it samples there (aligned correlation). None: at the same position (the paper).

        The query is taken from the interpolated embedding z' (figure 1: interpolation first, then sparse MSDA on its
        output); eq. 8 writes z_t.
        """
        height, width = z.shape[-2:]
        pixels = z.permute(0, 2, 3, 1)
        query = pixels[points.frame, points.y, points.x]  # (N, D)
        reference = torch.stack([points.x + 0.5, points.y + 0.5], -1)[:, None].repeat(1, NUM_LEVELS, 1)
        if shift is not None:
            moved = shift.permute(0, 2, 3, 1)[points.frame, points.y, points.x]  # (N, 2) as (y, x)
            reference[:, NUM_LEVELS // 2 :] += moved.flip(-1)[:, None]
        reference = reference / torch.tensor([width, height], device=z.device)
        query = query + self.attention(self.attention_norm(query), reference, values, rows)
        query = query + self.ffn_out(F.relu(self.ffn_in(self.ffn_norm(query))))
        updated = pixels.index_put((points.frame, points.y, points.x), query.to(z.dtype))
        return updated.permute(0, 3, 1, 2)
