"""From logits to labels at any size, without logits at that size.

Shapes: B frames, K classes, h w grid of the logits, H W size wanted, N pixels.

Bilinear resizing is a convex combination of four neighbours: where these agree in their argmax, so does every pixel
between them. Only pixels between disagreeing neighbours (object boundaries, some percent) need their K logits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_VALUES = 1 << 22
"""Gathered logits held at once: bounds memory whatever the size and the number of classes."""


def labels_from_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Argmax of ``logits`` (B, K, h, w) resized bilinearly to ``size`` = (H, W): labels (B, H, W) uint8.

    The same labels as argmax(interpolate(logits, size, mode="bilinear")), up to ties within rounding.
    """
    _, classes, h, w = logits.shape
    top, bottom, down = _taps(h, size[0], logits.device)
    left, right, across = _taps(w, size[1], logits.device)
    vectors = logits.permute(0, 2, 3, 1)
    coarse = _argmax(vectors)
    labels = _enlarge(coarse.to(torch.uint8), top, left)
    mixed = _nonzero(_enlarge(_is_mixed(coarse), top, left).flatten())
    # At least float32: coarser sums would tie where logits do not.
    cells = vectors.reshape(-1, classes).to(torch.promote_types(logits.dtype, torch.float32))
    # The four neighbours (upper left, upper right, lower left, lower right) and their shares are sums and products of
    # what the line and the column say, each in rows of four: these are quick to gather and to combine.
    lines, places = torch.stack([top, top, bottom, bottom], 1) * w, torch.stack([left, right, left, right], 1)
    vertical = torch.stack([1 - down, 1 - down, down, down], 1).to(cells.dtype)
    horizontal = torch.stack([1 - across, across, 1 - across, across], 1).to(cells.dtype)
    step = max(1, CHUNK_VALUES // classes)
    for pixels in torch.split(mixed, step):
        line = pixels.div(size[1], rounding_mode="floor")
        x = pixels - line * size[1]
        frame = line.div(size[0], rounding_mode="floor")
        y = line - frame * size[0]
        neighbours = lines.index_select(0, y).add_(places.index_select(0, x)).add_((frame * (h * w))[:, None])
        shares = vertical.index_select(0, y).mul_(horizontal.index_select(0, x))
        # Bags add the four neighbours up without writing any of them to memory first.
        summed = F.embedding_bag(neighbours, cells, mode="sum", per_sample_weights=shares)
        labels.view(-1)[pixels] = _argmax(summed).to(torch.uint8)
    return labels


def _taps(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For every output position: the two input positions around it and the share of the second (pixel centres)."""
    position = (torch.arange(target, device=device, dtype=torch.float32) + 0.5) * (source / target) - 0.5
    position = position.clamp(0, source - 1)
    first = position.floor().long()
    return first, (first + 1).clamp(max=source - 1), position - first


def _enlarge(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, h, w) → (B, H, W), value by value; columns first, so that rows are copied as a whole."""
    return x.index_select(2, columns).index_select(1, rows)


def _is_mixed(coarse: Tensor) -> Tensor:
    """(B, h, w) bool: position, right, lower and lower right neighbour (clamped) are not all of one class."""
    mixed = torch.zeros_like(coarse, dtype=torch.bool)
    mixed[:, :, :-1] |= coarse[:, :, :-1] != coarse[:, :, 1:]
    mixed[:, :-1] |= coarse[:, :-1] != coarse[:, 1:]
    mixed[:, :-1, :-1] |= coarse[:, :-1, :-1] != coarse[:, 1:, 1:]
    return mixed


def _argmax(x: Tensor) -> Tensor:
    """Position of the greatest value of the last axis, int64; NumPy's takes a third of the time for 150 classes."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return torch.from_numpy(np.argmax(x.detach().numpy(), axis=-1))
    return x.max(dim=-1).indices  # argmax takes twice as long in bfloat16


def _nonzero(x: Tensor) -> Tensor:
    """(N,) positions of true values of (n,), in order; NumPy's takes a fraction of the time where they are few."""
    if x.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(x.numpy()))
    return x.nonzero()[:, 0]
