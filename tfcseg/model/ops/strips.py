"""Compute wide layers in horizontal strips, so that their wide maps stay in the processor's cache.

The low stages of both backbones expand a high-resolution map four- to sixfold, filter it depthwise and contract it
again. Whole maps (29 MB for the first expansion of EfficientNet-Lite0 at 480×640) travel to memory and back several
times; strips of a few rows do not. Rows are computed from the same values in the same order, so results are exact; only
the rows where strips meet are expanded twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

STRIP_BYTES = 5 << 19
"""Expanded values held at once per thread: a little more than the second-level cache of current processors (1 to 2 MB).
With smaller strips, the cost of starting an operation outweighs the gain."""


class Rows(NamedTuple):
    """A strip: output rows ``first`` … ``last`` (excluded) and the input rows they are computed from."""

    first: int
    last: int
    top: int  # first input row
    bottom: int  # last input row (excluded)
    padding: tuple[int, int]  # rows of zeros above and below the input rows


def strips(height: int, count: int, *, kernel: int = 1, stride: int = 1, before: int = 0) -> list[Rows]:
    """Split the ``height // stride`` output rows of a k×k filter with ``before`` padded rows into ``count`` strips."""
    total = height // stride
    rows = []
    for strip in range(count):
        first, last = strip * total // count, (strip + 1) * total // count
        start, end = first * stride - before, (last - 1) * stride - before + kernel
        padding = (max(-start, 0), max(end - height, 0))
        rows.append(Rows(first, last, max(start, 0), min(end, height), padding))
    return rows


def strip_count(x: Tensor, widened: int, rows: int) -> int:
    """Number of strips for (B, C, h, w) ``x`` if one picture is expanded to ``widened`` channels, at most one per row.

    1 where strips gain nothing: on a GPU, and where gradients are recorded.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return 1
    size = x.shape[-2] * x.shape[-1] * widened * x.element_size()
    return max(1, min(rows, round(size / (STRIP_BYTES * torch.get_num_threads()))))


def in_strips(x: Tensor, rows: list[Rows], layers: Callable[[Tensor, Rows], Tensor]) -> Tensor:
    """Apply ``layers`` to the strips of every picture of ``x`` (B, C, h, w) and join the results: (B, C', h', w')."""
    pictures = [
        torch.cat([layers(picture[:, :, strip.top : strip.bottom], strip) for strip in rows], dim=2)
        for picture in torch.split(x, 1)
    ]
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures)
