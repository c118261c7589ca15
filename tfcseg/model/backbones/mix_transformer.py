"""Mix Transformer (MiT-B0…B5), the backbone of SegFormer (Xie et al., NeurIPS 2021, arXiv 2105.15203).

Letters: B batch, C channels, M heads, h w grid of a stage, N = h·w tokens, R reduction of keys and values. Inside a
stage features are tokens (B, N, C). Viewed as a map (B, C, h, w), this is PyTorch's channels_last format, so
convolutions need no copy in either direction: nothing in this file changes the memory order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfcseg.model.ops.fused import apply_linear, convolve
from tfcseg.model.ops.strips import Rows, in_strips, strip_count, strips

Four = tuple[int, int, int, int]

PATCHES: Four = (7, 3, 3, 3)
STRIDES: Four = (4, 2, 2, 2)
HEADS: Four = (1, 2, 5, 8)
REDUCTIONS: Four = (8, 4, 2, 1)
EXPANSION = 4

# The released weights were trained with two values of epsilon: NVlabs uses 1e-6 in the norms of blocks and stage ends,
# and PyTorch's 1e-5 in patch embeddings and reductions. Hugging Face uses 1e-5 everywhere.
BLOCK_EPSILON = 1e-6
EMBEDDING_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class MixTransformerVariant:
    """Sizes of a MiT: ``channels`` and number of blocks (``depths``) of its four stages."""

    channels: Four
    depths: Four


# Table 6 of the SegFormer paper.
MIT_VARIANTS: dict[str, MixTransformerVariant] = {
    "b0": MixTransformerVariant(channels=(32, 64, 160, 256), depths=(2, 2, 2, 2)),
    "b1": MixTransformerVariant(channels=(64, 128, 320, 512), depths=(2, 2, 2, 2)),
    "b2": MixTransformerVariant(channels=(64, 128, 320, 512), depths=(3, 4, 6, 3)),
    "b3": MixTransformerVariant(channels=(64, 128, 320, 512), depths=(3, 4, 18, 3)),
    "b4": MixTransformerVariant(channels=(64, 128, 320, 512), depths=(3, 8, 27, 3)),
    "b5": MixTransformerVariant(channels=(64, 128, 320, 512), depths=(3, 6, 40, 3)),
}


def _to_map(tokens: Tensor, size: torch.Size) -> Tensor:
    """Tokens (B, N, C) as a channels_last map (B, C, h, w); a view."""
    batch, _, channels = tokens.shape
    return tokens.transpose(1, 2).view(batch, channels, *size)


def _to_tokens(features: Tensor) -> Tensor:
    """Map (B, C, h, w) as tokens (B, N, C); a view, contiguous if the map is channels_last."""
    return features.flatten(2).transpose(1, 2)


class DropPath(nn.Module):
    """Stochastic depth: in training, zeroes a sample's whole branch with this probability and scales up the others."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        if not self.training or self.probability == 0:
            return branch
        keep = 1 - self.probability
        return branch * branch.new_empty(len(branch), 1, 1).bernoulli_(keep).div_(keep)


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values come from a grid R times coarser than the queries' (section 3.1)."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.output = nn.Linear(channels, channels)
        self.reduction: nn.Conv2d | None = None
        self.reduction_norm: nn.LayerNorm | None = None
        if reduction > 1:
            self.reduction = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.reduction_norm = nn.LayerNorm(channels, eps=EMBEDDING_EPSILON)

    def forward(self, tokens: Tensor, size: torch.Size) -> Tensor:
        """(B, N, C) -> (B, N, C); ``size`` is the grid (h, w)."""
        source = tokens
        if self.reduction is not None and self.reduction_norm is not None:
            source = self.reduction_norm(_to_tokens(self.reduction(_to_map(tokens, size))))
        query = self._split_heads(apply_linear(tokens, self.query))
        key, value = (self._split_heads(part) for part in apply_linear(source, self.key_value).chunk(2, dim=2))
        attended = F.scaled_dot_product_attention(query, key, value)
        return apply_linear(attended.transpose(1, 2).flatten(2), self.output)

    def _split_heads(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, M, N, C/M), a view."""
        batch, count, channels = tokens.shape
        return tokens.view(batch, count, self.heads, channels // self.heads).transpose(1, 2)


class MixFFN(nn.Module):
    """Feed-forward layer with a 3×3 depthwise convolution, which replaces a positional encoding (eq. 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels * EXPANSION
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor, size: torch.Size) -> Tensor:
        """(B, N, C) -> (B, N, C); ``size`` is the grid (h, w)."""
        features = _to_map(tokens, size)
        count = strip_count(features, self.expand.out_features, size[0] // self.depthwise.kernel_size[0])
        if count > 1:
            rows = strips(size[0], count, kernel=3, before=1)
            return _to_tokens(in_strips(features, rows, self._strip))
        return _to_tokens(self._layers(features))

    def _strip(self, features: Tensor, rows: Rows) -> Tensor:
        """Rows beside the strip are included as neighbours; their own results are dropped."""
        above = rows.first - rows.top
        return self._layers(features)[:, :, above : above + rows.last - rows.first]

    def _layers(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        size = features.shape[2:]
        hidden = convolve(_to_map(apply_linear(_to_tokens(features), self.expand), size), self.depthwise, "gelu")
        return _to_map(apply_linear(_to_tokens(hidden), self.contract), size)


class Block(nn.Module):
    """Attention, then Mix-FFN, each with a norm before and a residual connection."""

    def __init__(self, channels: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels, eps=BLOCK_EPSILON)
        self.attention = EfficientAttention(channels, heads, reduction)
        self.ffn_norm = nn.LayerNorm(channels, eps=BLOCK_EPSILON)
        self.ffn = MixFFN(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, size: torch.Size) -> Tensor:
        """(B, N, C) -> (B, N, C); ``size`` is the grid (h, w)."""
        attended: Tensor = tokens + self.drop_path(self.attention(self.attention_norm(tokens), size))
        output: Tensor = attended + self.drop_path(self.ffn(self.ffn_norm(attended), size))
        return output


class Stage(nn.Module):
    """Overlapping patch embedding, blocks, norm: one level of the pyramid from the previous one."""

    def __init__(self, embedding: nn.Conv2d, blocks: list[Block]) -> None:
        super().__init__()
        self.embedding = embedding
        self.embedding_norm = nn.LayerNorm(embedding.out_channels, eps=EMBEDDING_EPSILON)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(embedding.out_channels, eps=BLOCK_EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C_before, H, W) -> (B, C, h, w), channels_last if the input is."""
        embedded = self.embedding(features)
        size = embedded.shape[2:]
        tokens = self.embedding_norm(_to_tokens(embedded))
        for block in self.blocks:
            tokens = block(tokens, size)
        return _to_map(self.norm(tokens), size)


class MixTransformer(nn.Module):
    """Four stages at strides 4, 8, 16 and 32, callable in two halves; ``channels`` are the widths of x1…x4."""

    def __init__(self, stages: list[Stage]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(stage.embedding.out_channels for stage in stages)

    def encode_low(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised image (B, 3, H, W) -> x1 (B, C1, H/4, W/4), x2 (B, C2, H/8, W/8).

        H and W are multiples of 32: each stage's stride · R is 32, and the reductions would drop the rest.
        """
        x1 = self.stages[0](image.contiguous(memory_format=torch.channels_last))
        return x1, self.stages[1](x1)

    def encode_high(self, x2: Tensor) -> tuple[Tensor, Tensor]:
        """x2 (B, C2, H/8, W/8) -> x3 (B, C3, H/16, W/16), x4 (B, C4, H/32, W/32)."""
        x3 = self.stages[2](x2)
        return x3, self.stages[3](x3)


def build_mix_transformer(variant: str, *, drop_path: float = 0.1) -> MixTransformer:
    """Build an untrained MiT of ``variant`` b0…b5."""
    numbers = MIT_VARIANTS[variant]
    drop_paths = iter([drop_path * block / (sum(numbers.depths) - 1) for block in range(sum(numbers.depths))])
    stages = []
    before = 3
    for channels, depth, patch, stride, heads, reduction in zip(
        numbers.channels, numbers.depths, PATCHES, STRIDES, HEADS, REDUCTIONS, strict=True
    ):
        embedding = nn.Conv2d(before, channels, patch, stride=stride, padding=patch // 2)
        stages.append(Stage(embedding, [Block(channels, heads, reduction, next(drop_paths)) for _ in range(depth)]))
        before = channels
    network = MixTransformer(stages)
    network.apply(_initialise)
    return network


def _initialise(module: nn.Module) -> None:
    """Draw SegFormer's initial values: truncated normal for linear layers, He by fan-out for convolutions, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
