"""From logits to labels at any size, without logits at that size, and to their confidence.

Shapes: B frames, K classes, h w grid of the logits, H W output size, N pixels.

Bilinear resizing is a convex combination of four neighbours: where these agree in their argmax, so does every pixel
between them. Only between neighbours that disagree (object boundaries, a few percent) anything needs resizing: in most
places a single number, by how much one class leads another, if these two lead all others there; elsewhere all K logits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_VALUES = 1 << 22  # gathered logits held at once; bounds memory for any size and number of classes
PIXELS = 1 << 16  # pixels between two classes that are decided at once
MEANS = (0.0, 0.5, 1.0)  # shares of the second of two classes in the means that other classes are compared with
ROUNDING = 1e-6  # relative error that resized logits may have: closer classes are compared pixel by pixel


def labels_from_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Argmax of ``logits`` (B, K, h, w) resized bilinearly to ``size`` = (H, W): labels (B, H, W) uint8.

    The same labels as argmax(interpolate(logits, size, mode="bilinear")), up to ties within rounding.
    """
    vectors = logits.detach().permute(0, 2, 3, 1)
    cells = vectors.reshape(-1, logits.shape[1])
    return labels_from_cells(greatest(vectors), lambda where: cells.index_select(0, where), size)


def labels_from_cells(coarse: Tensor, logits_at: Callable[[Tensor], Tensor], size: tuple[int, int]) -> Tensor:
    """The same from the argmax ``coarse`` (B, h, w).

    ``logits_at`` returns logits (N, K) of some of the B·h·w cells, given indices (N,) of those beside borders.
    """
    frames, h, w = coarse.shape
    coarse = coarse.to(torch.uint8)
    mixed = _is_mixed(coarse)
    where = _nonzero(_with_neighbours(mixed).flatten())
    logits = logits_at(where)
    # At least float32: coarser sums would tie where logits do not.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    rows = torch.zeros(frames * h * w, dtype=torch.int64, device=coarse.device)  # of the logits, for each cell
    rows[where] = torch.arange(len(where), device=coarse.device)
    grid = _Grid(frames, (h, w), size, logits)
    paired, classes, leads = _find_pairs(logits, rows, coarse, mixed)
    labels = grid.enlarge(coarse).view(-1)
    for pixels in torch.split(_nonzero(grid.enlarge(paired).flatten()), PIXELS):
        cell, across, down = grid.places(pixels)
        here, right, below, opposite = (lead.index_select(0, cell) for lead in leads)
        lead = torch.lerp(torch.lerp(here, right, across), torch.lerp(below, opposite, across), down)
        labels.scatter_(0, pixels, classes.view(-1).index_select(0, cell.mul_(2).add_(lead > 0)))
    others = _nonzero(grid.enlarge(mixed & ~paired).flatten())
    for pixels in torch.split(others, max(1, CHUNK_VALUES // logits.shape[1])):
        cell, across, down = grid.places(pixels)
        shares = torch.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across], 1)
        # The embedding bag sums the four neighbours without writing any of them to memory first.
        summed = F.embedding_bag(rows[_neighbours(cell, h, w)], logits, mode="sum", per_sample_weights=shares)
        labels.scatter_(0, pixels, greatest(summed).to(torch.uint8))
    return labels.view(frames, *size)


def confidence_from_logits(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Largest probability of ``logits`` (B, K, h, w), each divided by ``temperature``: (B, h, w) uint8, 255 is 1.

    With a temperature fitted on held-out data (Guo et al., ICML 2017), it should be the share of labels that are right.
    """
    vectors = logits.detach().permute(0, 2, 3, 1).to(torch.promote_types(logits.dtype, torch.float32))
    behind = vectors - vectors.amax(-1, keepdim=True)
    largest = behind.mul_(1 / temperature).exp_().sum(-1).reciprocal_()
    return largest.mul_(255).round_().to(torch.uint8)


class _Grid:
    """Positions of the pixels of ``target`` (H, W) among the cells of ``source`` (h, w), in B ``frames``."""

    def __init__(self, frames: int, source: tuple[int, int], target: tuple[int, int], like: Tensor) -> None:
        self._top, down = _taps(source[0], target[0], like)
        self._left, self._across = _taps(source[1], target[1], like)
        self._down = down.repeat(frames)
        first_lines = torch.arange(frames, device=like.device)[:, None] * source[0]
        self._first = (first_lines + self._top).flatten() * source[1]  # cell at the start of each line of pixels

    def enlarge(self, x: Tensor) -> Tensor:
        """(B, h, w) → (B, H, W), value by value; columns first, so that rows are copied as a whole."""
        return x.index_select(2, self._left).index_select(1, self._top)

    def places(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For ``pixels`` (N,) of (B, H, W): the cell above and left, of (B, h, w), and the shares of the column to its
        right and of the row below it."""
        line = pixels.div(len(self._left), rounding_mode="floor")
        x = torch.sub(pixels, line, alpha=len(self._left))
        cell = self._first.index_select(0, line).add_(self._left.index_select(0, x))
        return cell, self._across.index_select(0, x), self._down.index_select(0, line)


def _find_pairs(cell_logits: Tensor, rows: Tensor, coarse: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find in which of the ``mixed`` cells (B, h, w), with argmax ``coarse``, up to the cells on their right and below
    them, only two classes can come first.

    ``rows`` (B·h·w,) are the cells' rows of ``cell_logits`` (N, K), of cells beside borders. Returns where these cells
    are, (B, h, w) bool; their classes (B·h·w, 2) uint8, in ascending order; and by how much the second one's logit is
    greater in the cell and its neighbours (4, B·h·w).

    A class stays behind everywhere between four neighbours if one of the two, or a mean of both, is greater in each of
    them: the greater of two is never below their mean, and all are resized with the same shares.
    """
    _, h, w = mixed.shape
    found = torch.zeros_like(mixed)
    count, num_classes = coarse.numel(), cell_logits.shape[1]
    classes = torch.zeros(count, 2, dtype=torch.uint8, device=coarse.device)
    leads = torch.zeros(4, count, dtype=cell_logits.dtype, device=coarse.device)
    for cell in torch.split(_nonzero(mixed.flatten()), max(1, CHUNK_VALUES // (4 * num_classes))):
        corners = _neighbours(cell, h, w).T.flatten()
        winners = coarse.view(-1).index_select(0, corners).view(4, -1)
        two = torch.stack(winners.aminmax(dim=0), 1).long()
        logits = cell_logits.index_select(0, rows.index_select(0, corners)).view(4, -1, num_classes)
        first, second = torch.split(logits.gather(2, two.expand(4, -1, -1)), 1, dim=2)
        slack = ROUNDING * (first.abs() + second.abs())
        ahead = [(logits - (torch.lerp(first, second, share) - slack)).amax(0) for share in MEANS]
        others = torch.stack(ahead).amin(0).scatter_(1, two, -torch.inf)
        found.view(-1).scatter_(0, cell, others.amax(1) < 0)
        classes.index_copy_(0, cell, two.to(torch.uint8))
        leads.index_copy_(1, cell, (second - first)[..., 0])
    return found, classes, leads


def _neighbours(cell: Tensor, h: int, w: int) -> Tensor:
    """(N, 4): ``cell`` (N,) of (B, h, w), the one to its right, the one below it and that one's right, clamped."""
    right = cell + (cell % w < w - 1)
    down = (cell // w % h < h - 1) * w
    return torch.stack([cell, right, cell + down, right + down], 1)


def _taps(source: int, target: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """For every output position: the input position before it, and the share of the one after it (pixel centres)."""
    position = (torch.arange(target, device=like.device, dtype=torch.float32) + 0.5) * (source / target) - 0.5
    position = position.clamp(0, source - 1)
    first = position.floor().long()
    return first, (position - first).to(like.dtype)


def _is_mixed(coarse: Tensor) -> Tensor:
    """(B, h, w) bool: the position and its right, lower and lower right neighbours (clamped) are of several classes."""
    mixed = torch.zeros_like(coarse, dtype=torch.bool)
    mixed[:, :, :-1] |= coarse[:, :, :-1] != coarse[:, :, 1:]
    mixed[:, :-1] |= coarse[:, :-1] != coarse[:, 1:]
    mixed[:, :-1, :-1] |= coarse[:, :-1, :-1] != coarse[:, 1:, 1:]
    return mixed


def _with_neighbours(mixed: Tensor) -> Tensor:
    """(B, h, w) bool: also the right, lower and lower right neighbours."""
    wider = mixed.clone()
    wider[:, :, 1:] |= mixed[:, :, :-1]
    wider[:, 1:] |= wider[:, :-1].clone()
    return wider


def greatest(x: Tensor) -> Tensor:
    """Index of the greatest value of the last axis, int64; NumPy takes a third of the time for 150 classes."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return torch.from_numpy(np.argmax(x.numpy(), axis=-1))
    return x.max(dim=-1).indices  # argmax takes twice as long in bfloat16


def _nonzero(x: Tensor) -> Tensor:
    """(N,) positions of true values of (n,), in order; NumPy takes a fraction of the time where they are few."""
    if x.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(x.numpy()))
    return x.nonzero()[:, 0]
