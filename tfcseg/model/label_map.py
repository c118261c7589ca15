"""From logits to labels at any size, without logits at that size.

Shapes: B frames, K classes, h w grid of the logits, H W size wanted, N pixels.

Bilinear resizing is a convex combination of four neighbours: where these agree in their argmax, so does every pixel
between them. Only pixels between disagreeing neighbours (object boundaries, some percent) need their K logits.
"""

from __future__ import annotations

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
    coarse = logits.max(dim=1).indices  # argmax takes twice as long in bfloat16
    labels = _enlarge(coarse.to(torch.uint8), top, left)
    frame, y, x = _enlarge(_is_mixed(coarse), top, left).nonzero(as_tuple=True)
    # At least float32: coarser sums would tie where logits do not.
    cells = logits.permute(0, 2, 3, 1).reshape(-1, classes).to(torch.promote_types(logits.dtype, torch.float32))
    step = max(1, CHUNK_VALUES // classes)
    for first in range(0, frame.numel(), step):
        part = slice(first, first + step)
        f, py, px = frame[part], y[part], x[part]
        upper, lower = (f * h + top[py]) * w, (f * h + bottom[py]) * w
        share_x, share_y = across[px].to(cells.dtype), down[py].to(cells.dtype)
        neighbours = torch.stack([upper + left[px], upper + right[px], lower + left[px], lower + right[px]], 1)
        shares = torch.stack([1 - share_x, share_x, 1 - share_x, share_x], 1)
        shares[:, :2] *= 1 - share_y[:, None]
        shares[:, 2:] *= share_y[:, None]
        # Bags add the four neighbours up without writing any of them to memory first.
        summed = F.embedding_bag(neighbours, cells, mode="sum", per_sample_weights=shares)
        labels[f, py, px] = summed.max(dim=1).indices.to(torch.uint8)
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
