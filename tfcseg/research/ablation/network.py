"""The network with single steps of the method left out or replaced: what an ablation compares.

Only the frames between keyframes change. All weights are the network's own, nothing is trained for a variant.
Shapes as in model/tfc.py: B keyframes, T frames per keyframe, K classes, h w grid at stride 4.
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
    """Which steps there are between eq. 4 and the class head; as it stands, all of them: the paper's method."""

    weight: Weight = "soft"
    """0 leaves interpolation out."""
    updates: bool = True
    """Whether sparse MSDA repairs the points below the threshold (eq. 11)."""
    level: int = 2
    """Encoder level that w_t compares, 1 or 2. Aligned correlation searches at level 2 in either case."""


class AblatedSegmenter(TFCSegmenter):
    """``network`` as ``variant`` has it: shares every part, differs in what becomes of them.

    ``on_result`` is called with every result for frames between keyframes, in their order.
    """

    def __init__(
        self, network: TFCSegmenter, variant: Variant, on_result: Callable[[NonKeyframes], None] = lambda result: None
    ) -> None:
        # Nothing is built, copied or loaded: attributes and submodules are those of the network.
        self.__dict__.update(network.__dict__)
        self._variant = variant
        self._on_result = on_result

    def _keyframe(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Keyframe]:
        logits, memory = super()._keyframe(x1, x2)
        return logits, memory if self._variant.level == 2 else memory._replace(level2=self._compared(x1, x2))

    def _non_keyframes(self, x1: Tensor, x2: Tensor, memory: Keyframe, options: InferenceOptions) -> NonKeyframes:
        """Eqs 4 to 11 with the variant's weight, points and level."""
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
        """The vectors whose cosine w_t is, at stride 4: (B·T, ·, h, w)."""
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
