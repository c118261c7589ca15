"""The paper's equations written out plainly: slow, and easy to check against the text."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tfcseg.model.decode_head import DecodeHead
from tfcseg.model.deformable import DeformableAttention, SparseUpdate
from tfcseg.model.tfc import TFCSegmenter


def linear(layer, x: Tensor) -> Tensor:
    """A linear layer over the channels of a map (B, C, h, w)."""
    return F.linear(x.permute(0, 2, 3, 1), layer.weight, layer.bias).permute(0, 3, 1, 2)


def enlarge(x: Tensor, size) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def displace(x: Tensor, cells: Tensor | None) -> Tensor:
    """Map x (1, C, h, w) of a keyframe with every position taken from ``cells`` (2, h, w) away, or from the border."""
    if cells is None:
        return x
    moved = torch.empty_like(x)
    height, width = x.shape[-2:]
    for i in range(height):
        for j in range(width):
            dy, dx = cells[:, i, j].tolist()
            moved[..., i, j] = x[..., min(max(i + dy, 0), height - 1), min(max(j + dx, 0), width - 1)]
    return moved


def look_up(x: Tensor, rows: Tensor) -> Tensor:
    """Map x (1, C, h, w) of a keyframe with every position taken from row ``rows`` (h·w,) of its positions."""
    moved = torch.empty_like(x)
    for position, row in enumerate(rows.tolist()):
        width = x.shape[-1]
        moved[..., position // width, position % width] = x[..., row // width, row % width]
    return moved


def embed(head: DecodeHead, levels, coarse_rows: Tensor | None = None) -> Tensor:
    """Eq. 2: project every level to D, resize to stride 4, concatenate, fuse, normalise, ReLU.

    ``coarse_rows``: levels 3 and 4 are a keyframe's, corrected by what changes when stride 8 is taken from where the
    scene was.
    """
    size, coarse = levels[0].shape[-2:], levels[1].shape[-2:]
    projected = [linear(head.projections[level], x) for level, x in enumerate(levels)]
    resized = [enlarge(x, size) for x in projected]
    if coarse_rows is not None:
        for level in (2, 3):
            at_stride_8 = enlarge(projected[level], coarse)
            resized[level] = resized[level] + enlarge(look_up(at_stride_8, coarse_rows) - at_stride_8, size)
    return F.relu(head.norm(F.conv2d(torch.cat(resized, dim=1), head.fuse.weight)))


def classify(head: DecodeHead, z: Tensor) -> Tensor:
    """Eq. 3 before its resize."""
    return F.conv2d(z, head.classifier.weight, head.classifier.bias)


def sample(grid: Tensor, x: float, y: float) -> Tensor:
    """Bilinear sample of a (h, w, d) grid at (x, y) in 0…1; cells outside of it are 0. Returns (d,)."""
    height, width, depth = grid.shape
    column, line = x * width - 0.5, y * height - 0.5
    total = torch.zeros(depth, dtype=grid.dtype)
    for i in (math.floor(line), math.floor(line) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                total = total + (1 - abs(line - i)) * (1 - abs(column - j)) * grid[i, j]
    return total


def attend(attention: DeformableAttention, query: Tensor, references, grids) -> Tensor:
    """Eqs 8 to 10 for one query (D,) → (D,).

    Per level: a reference (x, y) in 0…1 and a projected grid (h_l, w_l, D).
    """
    heads, points, levels = attention.heads, attention.points, len(grids)
    depth = query.numel() // heads
    offsets = attention.offsets(query).reshape(heads, levels, points, 2)
    weights = attention.weights(query).reshape(heads, levels * points).softmax(-1).reshape(heads, levels, points)
    outputs = []
    for m in range(heads):
        total = torch.zeros(depth, dtype=query.dtype)
        for level, (grid, reference) in enumerate(zip(grids, references, strict=True)):
            height, width = grid.shape[:2]
            value = attention.value(grid)[..., m * depth : (m + 1) * depth]
            for p in range(points):
                dx, dy = offsets[m, level, p].tolist()
                found = sample(value, reference[0] + dx / width, reference[1] + dy / height)
                total = total + weights[m, level, p] * found
        outputs.append(total)
    return attention.output(torch.cat(outputs))


def update_point(update: SparseUpdate, z: Tensor, y: int, x: int, grids, shift=(0, 0)) -> Tensor:
    """Eq. 11 at one point of z (D, h, w): attention, then feed-forward, each with norm and residual. Returns (D,).

    ``shift`` (y, x) in cells of z: where the point lies in the keyframe, whose levels 3 and 4 are looked at there.
    """
    height, width = z.shape[1:]
    here = ((x + 0.5) / width, (y + 0.5) / height)
    there = ((x + shift[1] + 0.5) / width, (y + shift[0] + 0.5) / height)
    query = z[:, y, x]
    query = query + attend(update.attention, update.attention_norm(query), (here, here, there, there), grids)
    return query + update.ffn_out(F.relu(update.ffn_in(update.ffn_norm(query))))


def non_keyframe(
    network: TFCSegmenter, keyframe: Tensor, image: Tensor, *, mode="tfc", threshold=0.8, cells=None, coarse_rows=None
):
    """Eqs 1 to 11 for one non-keyframe; both images (1, 3, H, W). Returns its logits (K, h, w) and w_t (h, w).

    ``cells`` (2, h, w) and ``coarse_rows``: where each position lies in the keyframe (aligned correlation).
    """
    head, backbone = network.decode_head, network.backbone
    x1_k, x2_k = backbone.encode_low(keyframe)
    x3_k, x4_k = backbone.encode_high(x2_k)
    x1_t, x2_t = backbone.encode_low(image)
    mixed = (x1_t, x2_t, x3_k, x4_k)  # (4)
    z_k = displace(embed(head, (x1_k, x2_k, x3_k, x4_k)), cells)  # (2)
    z_t = embed(head, mixed, coarse_rows)
    size = z_k.shape[-2:]
    a, b = (enlarge(linear(head.projections[1], x2), size) for x2 in (x2_k, x2_t))
    a = displace(a, cells)
    w = (a * b).sum(1) / ((a * a).sum(1).sqrt() * (b * b).sum(1).sqrt())  # (5, 6)
    if mode == "reuse":
        return classify(head, z_t)[0], w[0]
    w_hat = w.clamp(0, 1)
    z = w_hat * z_k + (1 - w_hat) * z_t  # (7)
    grids = [linear(head.projections[level], x)[0].permute(1, 2, 0) for level, x in enumerate(mixed)]
    updated = z.clone()
    for y, x in (w[0] < threshold).nonzero().tolist():  # (11)
        shift = (0, 0) if cells is None else cells[:, y, x].tolist()
        updated[0, :, y, x] = update_point(network.update, z[0], y, x, grids, shift)
    return classify(head, updated)[0], w[0]


def assert_best_labels(labels: Tensor, logits: Tensor, *, tolerance: float = 1e-4) -> None:
    """Labels (B, H, W) are the argmax of ``logits`` (B, K, h, w) resized to their size.

    Where two classes are closer than ``tolerance``, rounding may decide between them.
    """
    full = enlarge(logits, labels.shape[1:])
    best = full.max(dim=1)
    chosen = full.gather(1, labels[:, None].long())[:, 0]
    assert labels.dtype == torch.uint8
    assert (best.values - chosen).max() <= tolerance
    clear = full.topk(min(2, full.shape[1]), dim=1).values.diff(dim=1).abs().sum(1) > tolerance
    assert torch.equal(labels[clear], best.indices[clear].to(torch.uint8))
