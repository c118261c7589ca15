"""The network with steps of the method left out or replaced, for ablations.

Only frames between keyframes change. Variants use the network's weights without further training. Shapes as in
model/tfc.py: B keyframes, T frames per keyframe, K classes, h w grid at stride 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from tfcseg.model.alignment import find_shift, move
from tfcseg.model.correlation import inconsistent_points, interpolate, interpolation_weight, similarity
from tfcseg.model.decode_head import resize
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import Keyframe, NonKeyframes, TFCSegmenter

Weight: TypeAlias = float | str
"""ŵ_t of eq. 7: ``soft`` (clamped w_t), ``hard`` (1 where w_t reaches the threshold, else 0), or one number for all."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Steps between eq. 4 and the class head; by default all of the paper's."""

    weight: Weight = "soft"
    """0 leaves out interpolation."""
    updates: bool = True
    """Whether sparse MSDA updates the points below the threshold (eq. 11)."""
    level: int = 2
    """Encoder level compared by w_t, 1 or 2. Aligned correlation always searches at level 2."""


class AblatedSegmenter(TFCSegmenter):
    """``network`` with the steps of ``variant``; shares all parts.

    ``on_result`` is called with each result for frames between keyframes, in order.
    """

    def __init__(
        self, network: TFCSegmenter, variant: Variant, on_result: Callable[[NonKeyframes], None] = lambda result: None
    ) -> None:
        # Share attributes and submodules with the network; build nothing.
        self.__dict__.update(network.__dict__)
        self._variant = variant
        self._on_result = on_result

    def _keyframe(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Keyframe]:
        logits, memory = super()._keyframe(x1, x2)
        return logits, memory if self._variant.level == 2 else memory._replace(level2=self._compared(x1, x2))

    def _non_keyframes(self, x1: Tensor, x2: Tensor, memory: Keyframe, options: InferenceOptions) -> NonKeyframes:
        """Apply eqs 4 to 11 with the variant's weight, points and level."""
        head = self.decode_head
        frames = x1.shape[0]
        limit = options.threshold
        shift = find_shift(memory.match, self._correlated(x2)) if options.correlation == "aligned" else None
        rows = None if shift is None else shift.rows
        z_t = self._mixed_embedding(x1, x2, memory, shift)
        w = similarity(move(memory.level2, rows, frames), self._compared(x1, x2))
        w_hat = self._weight(w, limit)
        logits = interpolate(move(memory.logits, rows, frames), head.classify(z_t), w_hat)
        points = inconsistent_points(w, limit if self._variant.updates else -math.inf)
        if points.frame.numel():
            updated = head.classify_points(self._updated(points, z_t, w_hat, (x1, x2), memory, shift=shift))
            logits.permute(0, 2, 3, 1)[points.frame, points.y, points.x] = updated.to(logits.dtype)
        share = torch.bincount(points.frame, minlength=frames).float() / w[0, 0].numel()
        result = NonKeyframes(logits, w[:, 0], share, shift)
        self._on_result(result)
        return result

    def _compared(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Vectors compared by w_t, at stride 4: (B·T, ·, h, w)."""
        if self._variant.level == 1:
            return self.decode_head.project(x1, 0)
        return resize(self._correlated(x2), (x1.shape[-2], x1.shape[-1]))

    def _weight(self, w: Tensor, threshold: float) -> Tensor:
        """ŵ_t for similarities w (B·T, 1, h, w)."""
        weight = self._variant.weight
        if weight == "soft":
            return interpolation_weight(w)
        if weight == "hard":
            return (w >= threshold).to(w.dtype)
        return torch.full_like(w, float(weight))
