"""Aligned correlation (ours, not the paper's): compare with the keyframe at the place the scene *moved to*.

The paper compares the same position in keyframe and current frame, so a moving camera makes everything inconsistent.
Here every position first searches for its best match among the keyframe's low-level features, within REACH cells at
stride 8; what is taken from the keyframe is taken from there. No optical flow, no parameters.

The search goes from coarse to fine: all cells of stride 16 within reach, then the nine of stride 8 around the best. On
a driving clip, mIoU and VC are within 0.1 points of a full search at stride 8, at a tenth of its cost. Features are too
coarse to tell where a thin or small thing is, so `place_by_pixels` compares colours at stride 4 last.

Shapes: B keyframes, T frames per keyframe, C channels, h4 w4, h8 w8, h16 w16 grids of these strides (h8, w8 even).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tfcseg.model.correlation import per_frame
from tfcseg.model.ops.labelling import greatest

REACH = 8  # in cells at stride 8: 64 px of the network's input in every direction within one interval

DISTANCE_PENALTY = 0.004
"""Cosine that a match must gain per cell of distance; without it, matches in flat regions would wander."""

COLOUR_PENALTY = 0.01
"""Normalised colour (about half a grey level) by which a neighbour must match better per cell of distance; without it,
noise would shift flat regions."""

STRIP = 16  # columns that are compared at once: with fewer, less of a product is far from its diagonal
BLOCKS = 128  # blocks of positions that are compared at once on a CPU: what is gathered for them stays in the cache
DISTANCES = torch.tensor([(y * y + x * x) ** 0.5 for y in (-1, 0, 1) for x in (-1, 0, 1)])  # of 3×3 positions around


class Shift(NamedTuple):
    """Where each position of the current frames lies in its keyframe."""

    rows: Tensor  # (B·T·h4·w4,) row of the keyframes' (B·h4·w4) positions
    coarse_rows: Tensor  # (B·T·h8·w8,) the same at stride 8
    cells: Tensor  # (B·T, 2, h4, w4) displacement (y, x) in cells at stride 4


@torch.no_grad()
def find_shift(keyframe: Tensor, current: Tensor) -> Shift | None:
    """Find the best match of each position; None if nothing moved.

    keyframe (B, C, h8, w8), current (B·T, C, h8, w8): level 2, or any vectors whose cosines measure similarity. Matches
    are whole cells at stride 8, refined to stride 4 by a parabola where something moved. Not differentiable: training
    sees the moved features, not the choice.
    """
    cells, _ = find_matches(F.normalize(keyframe, dim=1), F.normalize(current, dim=1))
    # An exported graph has no branches: it also moves by nothing.
    if not torch.compiler.is_compiling() and not cells.any():
        return None
    coarse = (cells / 2).round().long()
    cells = F.interpolate(cells, scale_factor=2.0, mode="bilinear", align_corners=False).round().long()
    batch = keyframe.shape[0]
    return Shift(rows_at(cells, batch), rows_at(coarse, batch), cells)


def find_matches(keyframe: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    """The same for normalised vectors. Returns displacements (B·T, 2, h8, w8), (y, x) in half cells of stride 8, and
    cosines with the whole cells there (B·T, 1, h8, w8)."""
    scores = match_scores(_halve(keyframe), _halve(current), REACH // 2, 2 * DISTANCE_PENALTY)
    side = 2 * (REACH // 2) + 1
    best = _best(scores)
    near = 2 * torch.stack([best // side - REACH // 2, best % side - REACH // 2], dim=1)
    cosines = near_cosines(keyframe, current, near)
    scores = near_scores(cosines, near)
    best = _best(scores)
    return refine(scores, near, best), cosines.gather(1, best[:, None])


def match_scores(keyframe: Tensor, current: Tensor, reach: int, penalty: float) -> Tensor:
    """Similarity (B·T, S·S, h, w) of each position to the S·S around it in the keyframe, S = 2·reach + 1.

    Both inputs normalised, (B, C, h, w) and (B·T, C, h, w). Cosines are averaged over 3×3 positions, minus ``penalty``
    per cell of distance. Outside of the keyframe the cosine is 0. The result is channels_last.
    """
    batch, channels, h, w = keyframe.shape
    frames, side = current.shape[0], 2 * reach + 1
    padded = F.pad(keyframe.permute(0, 2, 3, 1), (0, 0) + (reach,) * 4)  # (B, h + 2R, w + 2R, C)
    own = current.view(batch, -1, channels, h, w).permute(0, 3, 1, 4, 2)  # (B, h, T, w, C)
    bands = []
    for left in range(0, w, STRIP):
        rows = own[:, :, :, left : left + STRIP]
        wide = rows.shape[3] + 2 * reach
        # One product per row: all positions of a row of T frames with the keyframe's S rows around it. For one
        # keyframe, the overlapping rows are a view.
        lines = padded[:, :, left : left + wide].contiguous().unfold(1, side, 1).permute(0, 1, 4, 2, 3)
        lines = lines.reshape(batch * h, side * wide, channels).transpose(1, 2)
        product = torch.bmm(rows.reshape(batch * h, -1, channels), lines).view(*rows.shape[:4], side, wide)
        # For each x of the row, only columns x … x + 2R of the product are near: a band beside the diagonal.
        strides = product.stride()
        bands.append(product.as_strided((*product.shape[:5], side), (*strides[:3], strides[3] + 1, strides[4], 1)))
    scores = _smooth(torch.cat(bands, dim=3).transpose(1, 2).reshape(frames, h, w, side * side))
    offsets = torch.arange(-reach, reach + 1, device=current.device, dtype=current.dtype)
    distance = torch.hypot(*torch.meshgrid(offsets, offsets, indexing="ij")).flatten()
    return scores.sub_(penalty * distance).permute(0, 3, 1, 2)


def near_cosines(keyframe: Tensor, current: Tensor, near: Tensor) -> Tensor:
    """Similarity (B·T, 9, h8, w8) of each position to the 3×3 cells around its block's match; channels_last.

    Both inputs normalised; ``near`` (B·T, 2, h16, w16): displacement (y, x) in cells at stride 8 of blocks of 2×2
    positions.
    """
    batch, channels, h, w = keyframe.shape
    frames = current.shape[0]
    # The 3×3 neighbourhoods of a block's four positions lie in one window of 4×4 cells, gathered once per block.
    window = torch.arange(-1, 3, device=near.device)
    y = (2 * torch.arange(h // 2, device=near.device)[:, None] + near[:, 0])[..., None] + window  # (B·T, h16, w16, 4)
    x = (2 * torch.arange(w // 2, device=near.device) + near[:, 1])[..., None] + window
    inside = ((y >= 0) & (y < h))[..., :, None] & ((x >= 0) & (x < w))[..., None, :]
    interval = torch.arange(frames, device=near.device).view(-1, 1, 1, 1, 1) // (frames // batch)
    rows = (interval * h + y.clamp(0, h - 1)[..., :, None]) * w + x.clamp(0, w - 1)[..., None, :]
    vectors = keyframe.permute(0, 2, 3, 1).reshape(-1, channels)
    blocks = current.view(frames, channels, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, channels)
    is_cached = near.device.type == "cpu" and not torch.compiler.is_compiling()
    at_once = BLOCKS if is_cached else len(blocks)
    products = [
        torch.bmm(part, vectors.index_select(0, there.flatten()).view(-1, 16, channels).transpose(1, 2))
        for part, there in zip(torch.split(blocks, at_once), torch.split(rows.view(-1, 16), at_once), strict=True)
    ]
    cosines = torch.cat(products).mul_(inside.view(-1, 1, 16))
    # Position (i, j) of a block compares with rows i … i + 2 and columns j … j + 2 of the window. A block has 16
    # numbers per position, four per row of the window: the next i begins 2 · 16 + 4 numbers later, the next j 16 + 1.
    own = cosines.view(frames, h // 2, w // 2, 64)
    own = own.as_strided((*own.shape[:3], 2, 2, 3, 3), (*own.stride()[:3], 36, 17, 4, 1))
    return own.permute(0, 1, 3, 2, 4, 5, 6).reshape(frames, h, w, 9).permute(0, 3, 1, 2)


def near_scores(cosines: Tensor, near: Tensor) -> Tensor:
    """`near_cosines` smoothed and penalised like `match_scores`, every position at its own block's displacement."""
    step = torch.arange(-1, 2, device=near.device)
    there = near[:, :, :, None, :, None, None].to(cosines.dtype)  # of every block, for its 2×2 positions
    dy, dx = there[:, 0] + step.repeat_interleave(3), there[:, 1] + step.repeat(3)
    smooth = _smooth(cosines.permute(0, 2, 3, 1).clone())
    blocks = smooth.view(smooth.shape[0], near.shape[2], 2, near.shape[3], 2, 9)
    blocks.sub_(DISTANCE_PENALTY * torch.hypot(dy, dx))
    return smooth.permute(0, 3, 1, 2)


def refine(scores: Tensor, near: Tensor, best: Tensor) -> Tensor:
    """Displacement (B·T, 2, h8, w8) in cells at stride 4 from the nine ``scores`` (B·T, 9, h8, w8) around ``near``.

    A parabola through the ``best`` score (B·T, h8, w8) and its neighbours places moving positions to half a cell of
    stride 8. Positions that did not move by a whole cell stay: there, an asymmetric score is texture, not motion.
    """
    offset = torch.stack([best // 3, best % 3], dim=1) - 1
    moved = near.repeat_interleave(2, 2).repeat_interleave(2, 3) + offset
    # At the window's edge a neighbour is missing.
    inner = (offset == 0) & (moved != 0).any(dim=1, keepdim=True)
    step = inner * torch.tensor([3, 1], device=best.device).view(2, 1, 1)
    low, mid, high = (scores.gather(1, best.unsqueeze(1) + sign * step) for sign in (-1, 0, 1))
    curve = (low - 2 * mid + high).clamp(max=-1e-6)
    fraction = (0.5 * (low - high) / curve).clamp(-0.5, 0.5)
    return (2 * (moved + fraction * inner)).round().to(scores.dtype)


def _best(scores: Tensor) -> Tensor:
    """Index (B, h, w) of the greatest of (B, S, h, w), channels_last."""
    vectors = scores.permute(0, 2, 3, 1)
    return vectors.argmax(dim=-1) if torch.compiler.is_compiling() else greatest(vectors.detach())


def move(keyframe: Tensor, rows: Tensor | None, frames: int) -> Tensor:
    """Move a keyframe's map (B, C, h, w) to its frames (frames, C, h, w): each position from where it was.

    ``rows`` are those of a `Shift` at the map's stride; None: nothing moved.
    """
    if rows is None:
        return per_frame(keyframe, frames)
    _, channels, h, w = keyframe.shape
    vectors = keyframe.permute(0, 2, 3, 1).reshape(-1, channels)
    return vectors.index_select(0, rows).view(frames, h, w, channels).permute(0, 3, 1, 2)


def surroundings(picture: Tensor) -> Tensor:
    """(3, h·w, 9): colours of the 3×3 positions around each one of a picture (1, 3, h, w), for `place_by_pixels`; at
    least float32."""
    h, w = picture.shape[-2:]
    padded = F.pad(_colours(picture), (1,) * 4, mode="replicate")
    return torch.stack([padded[:, :, y : y + h, x : x + w] for y in range(3) for x in range(3)], dim=-1).view(3, -1, 9)


def _colours(pictures: Tensor) -> Tensor:
    """Pictures (T, 3, h, w) one colour after the other. In half precision differences would hide the penalty, and take
    six times as long on a CPU."""
    return pictures.to(torch.promote_types(pictures.dtype, torch.float32)).contiguous()


class Placed(NamedTuple):
    """Matches that colours have placed."""

    rows: Tensor | None  # (T·h·w,) row of each position's match among the keyframe's h·w; None: nothing moved
    difference: Tensor  # (T, 1, h, w) mean difference of normalised colours around each match


def place_by_pixels(rows: Tensor | None, around: Tensor, pictures: Tensor) -> Placed:
    """Correct matches ``rows`` (T·h·w,) in the h·w positions of a keyframe by at most one position, to where colours
    differ least.

    ``around`` (3, h·w, 9): `surroundings` of the keyframe. pictures (T, 3, h, w): normalised colours. Differences are
    averaged over 3×3 positions.
    """
    frames, _, h, w = pictures.shape
    here = torch.arange(h * w, device=pictures.device).repeat(frames)
    there = here if rows is None else rows
    own = _colours(pictures).transpose(0, 1).reshape(3, -1, 1)
    difference = around.index_select(1, there).sub_(own).abs_().mean(dim=0)
    difference = _smooth(difference.view(frames, h, w, 9)).view(-1, 9)
    difference += COLOUR_PENALTY * DISTANCES.to(difference)
    least, best = difference.min(dim=1)
    found = _rows_around(h, w, pictures.device).index_select(0, best.add_(there, alpha=9))
    return Placed(None if torch.equal(found, here) else found, least.view(frames, 1, h, w).to(pictures.dtype))


@lru_cache(maxsize=4)
def _rows_around(h: int, w: int, device: torch.device) -> Tensor:
    """(h·w·9,): rows of the 3×3 positions around each of h·w positions, clamped to the picture."""
    step = torch.arange(-1, 2, device=device)
    y = (torch.arange(h, device=device)[:, None] + step).clamp_(0, h - 1)
    x = (torch.arange(w, device=device)[:, None] + step).clamp_(0, w - 1)
    return (y[:, None, :, None] * w + x[None, :, None]).flatten()


def _smooth(x: Tensor) -> Tensor:
    """Mean over 3×3 positions of (B, h, w, S), with zeros around; overwrites ``x``.

    Adding neighbours in place takes a tenth of the time of `F.avg_pool2d` on a CPU, which is not vectorised there.
    """
    columns = x.clone()
    columns[:, :, 1:] += x[:, :, :-1]
    columns[:, :, :-1] += x[:, :, 1:]
    x.copy_(columns)
    x[:, 1:] += columns[:, :-1]
    x[:, :-1] += columns[:, 1:]
    return x.div_(9)


def _halve(x: Tensor) -> Tensor:
    """Normalised vectors at half the resolution."""
    return F.normalize(F.avg_pool2d(x, 2), dim=1)


def rows_at(cells: Tensor, batch: int) -> Tensor:
    """Rows of matches among the (B·h·w) positions of B keyframes, clamped to the picture, for displacements ``cells``
    (B·T, 2, h, w) on that grid."""
    frames, _, h, w = cells.shape
    y = (torch.arange(h, device=cells.device)[:, None] + cells[:, 0]).clamp(0, h - 1)
    x = (torch.arange(w, device=cells.device) + cells[:, 1]).clamp(0, w - 1)
    interval = torch.arange(frames, device=cells.device)[:, None, None] // (frames // batch)
    return ((interval * h + y) * w + x).flatten()
