"""Multi-scale deformable attention (eqs 8 to 10) and its sparse use (eq. 11).

Shapes: S maps in a stack, N points, D width, M heads, d = D/M, L = 4 levels, P sampling points, h_l w_l grids.

The sparse form gathers: queries, offsets, weights and samples exist only for the N inconsistent points. Masking a dense
computation would cost more than the backbone stages that it replaces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfcseg.model.config import NUM_LEVELS
from tfcseg.model.correlation import Points
from tfcseg.model.ops.fused import apply_linear, is_for_onednn
from tfcseg.model.ops.sampling import Level, UnprojectedLevel, sample_and_weigh

BLOCK_POINTS = 1024
"""Points that go through the FFN together: a fixed number, which is fast in oneDNN and keeps wide tensors small."""


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

        Eq. 10 projects the raw levels, which have different widths. One matrix needs one width, so we project the
        D-wide levels x̂_l instead.
        """
        return self.split_heads(self.value(projected.permute(0, 2, 3, 1)))

    def split_heads(self, value: Tensor) -> Tensor:
        """(S, h_l, w_l, D) → (S, h_l, w_l, M, d), a view."""
        return value.reshape(*value.shape[:-1], self.heads, -1)

    def level(self, x: Tensor, weight: Tensor, bias: Tensor, count: int) -> Level:
        """Prepare x_l (S, C_l, h_l, w_l), whose values are weight (D, C_l) times x_l plus bias (D,), for `forward`.

        Returns a value map, or the raw level if that costs less for ``count`` points N.
        """
        unprojected = UnprojectedLevel(x, weight, bias)
        if unprojected.is_cheaper(count, self.heads, self.points):
            return unprojected
        return self.split_heads(F.conv2d(x, weight[:, :, None, None], bias).permute(0, 2, 3, 1))

    def forward(self, query: Tensor, reference: Tensor, levels: Sequence[Level], rows: Sequence[Tensor]) -> Tensor:
        """Attend from query (N, D) at reference (N, L, 2), (x, y) in 0…1; levels and rows as in `sample_and_weigh`.

        Returns (N, D).
        """
        count = query.shape[0]
        # At least float32 from here: half precision cannot tell neighbouring cells of a wide map apart.
        precise = torch.promote_types(query.dtype, torch.float32)
        offsets = self.offsets(query).view(count, self.heads, NUM_LEVELS, self.points, 2)
        weights = self.weights(query).view(count, self.heads, NUM_LEVELS * self.points).softmax(-1, dtype=precise)
        weights = weights.view(count, self.heads, NUM_LEVELS, self.points)
        output: Tensor = self.output(sample_and_weigh(levels, rows, reference.to(precise), offsets, weights))
        return output

    def _init_parameters(self) -> None:
        """Heads look in M directions, with their points 1…P cells away and equal weights (Deformable DETR)."""
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
    """The layer that updates inconsistent points: MSDA and FFN, each with a residual (0.76 M parameters at D 256).

    The paper gives only a parameter count (+0.7 M); a standard deformable transformer layer (MSDA, FFN(1024) and two
    norms) comes closest. Norms come before the sub-layers, and both output layers start at zero: the untrained layer is
    the identity, so the shared classifier is right from the first step.
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
        query: Tensor,
        points: Points,
        size: tuple[int, int],
        levels: Sequence[Level],
        rows: Sequence[Tensor],
        shift: Tensor | None = None,
    ) -> Tensor:
        """Eq. 11 for the N ``points`` of a grid of ``size`` (h, w): embeddings ``query`` (N, D) → updated (N, D).

        levels and rows as in `sample_and_weigh`.

        ``shift`` (S, 2, h, w) are displacements (y, x) in cells of the grid: where a position lies in the keyframe,
        whose levels 3 and 4 it samples there (aligned correlation). None: at the same position (the paper).

        The query is the interpolated embedding z' (figure 1: interpolation first, then sparse MSDA on its output); eq.
        8 writes z_t.
        """
        height, width = size
        here = torch.stack([(points.x + 0.5) / width, (points.y + 0.5) / height], -1)  # (N, 2)
        there = here
        if shift is not None:
            y, x = shift[points.frame, :, points.y, points.x].unbind(-1)
            there = torch.stack([(points.x + x + 0.5) / width, (points.y + y + 0.5) / height], -1)
        reference = torch.stack([here, here, there, there], 1)
        query = query + self.attention(self.attention_norm(query), reference, levels, rows)
        if len(query) < BLOCK_POINTS or not is_for_onednn(query):
            return self._feed_forward(query)
        return torch.cat([self._feed_forward(block) for block in torch.split(query, BLOCK_POINTS)])

    def _feed_forward(self, x: Tensor) -> Tensor:
        """FFN with its residual: (N, D) → (N, D)."""
        normed = self.ffn_norm(x)
        if len(x) < BLOCK_POINTS:
            fed: Tensor = self.ffn_out(F.relu(self.ffn_in(normed), inplace=True))
            return x + fed
        return x + apply_linear(apply_linear(normed, self.ffn_in, "relu"), self.ffn_out)
