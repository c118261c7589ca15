"""Rows of the ablation table: the network with steps of the method left out or replaced, and the row it builds on.

Only frames between keyframes change. Variants use the network's weights without further training. Shapes as in
model/tfc.py: B keyframes, T frames per keyframe, K classes, h w grid at stride 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from tfcseg.model.correlation import inconsistent_points, interpolation_weight, similarity
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import Keyframe, NonKeyframes, TFCSegmenter, replace_points
from tfcseg.research.ablation.paper import (
    ABLATED_THRESHOLDS,
    FIXED_WEIGHTS,
    INTERVALS,
    LARGER_KEYFRAMES,
    WITHOUT_BCE,
)

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


class AblatedSegmenter:
    """``network`` with the steps of ``variant``, for `IntervalNetwork`.

    ``on_result`` is called with each result for frames between keyframes, in order.
    """

    def __init__(
        self, network: TFCSegmenter, variant: Variant, on_result: Callable[[NonKeyframes], None] = lambda result: None
    ) -> None:
        self._network, self._variant, self._on_result = network, variant, on_result
        self.carry_over = network.carry_over

    def keyframe(self, image: Tensor) -> tuple[Tensor, Keyframe]:
        """As `TFCSegmenter.keyframe`."""
        logits, memory = self._network.keyframe(image)
        if self._variant.level == 1:
            memory = memory._replace(level2=self._level1(self._network.backbone.encode_low(image)[0]))
        return logits, memory

    def non_keyframes(self, images: Tensor, memory: Keyframe, options: InferenceOptions) -> NonKeyframes:
        """Eqs 4 to 11 with the variant's weight, points and level."""
        network, variant, options = self._network, self._variant, self._network.completed(options)
        found = network.between(*network.backbone.encode_low(images), memory, options)
        w = similarity(found.moved(memory.level2), found.level2 if variant.level == 2 else self._level1(found.x1))
        w_hat = self._weight(w, options.threshold)
        logits = network.interpolated(found, memory, w_hat)
        points = inconsistent_points(w, options.threshold if variant.updates else -math.inf)
        if points.frame.numel():
            logits = replace_points(logits, points, network.updated(found, memory, w_hat, points))
        result = NonKeyframes.of(found, logits, w, points)
        self._on_result(result)
        return result

    def _level1(self, x1: Tensor) -> Tensor:
        """Level 1 as vectors to compare, (B·T, D, h, w)."""
        return self._network.decode_head.project(x1, 0)

    def _weight(self, w: Tensor, threshold: float) -> Tensor:
        """ŵ_t for similarities w (B·T, 1, h, w)."""
        weight = self._variant.weight
        if weight == "soft":
            return interpolation_weight(w)
        if weight == "hard":
            return (w >= threshold).to(w.dtype)
        return torch.full_like(w, float(weight))


@dataclass(frozen=True, slots=True)
class Row:
    """A way of computing frames between keyframes; without ``variant`` the network is unchanged."""

    name: str
    title: str
    builds_on: str | None
    """Row that its scores are compared with."""
    options: InferenceOptions
    variant: Variant | None


def build_rows(settings: InferenceOptions) -> list[Row]:
    """All rows for the ``settings`` of the full method, in the table's order.

    Keyframes carry over results only in row ``carry`` and in rows with both sides, since this would hide other effects.
    """
    settings = replace(settings, sides="one", keyframes="fixed", keyframe_scale=1.0)
    options = replace(settings, keyframe_carry=0.0)
    plain = Variant(weight=0.0, updates=False)
    rows = [
        Row("image", "image", None, replace(options, mode="image", keyframe_interval=1), None),
        Row("reuse", "feature reuse", "image", options, plain),
        Row("interpolation", "+ interpolation", "reuse", options, replace(plain, weight="soft")),
        Row("hard", "+ hard weights", "interpolation", options, replace(plain, weight="hard")),
    ]
    for weight in FIXED_WEIGHTS:
        fixed = replace(plain, weight=weight)
        rows.append(Row(f"weight-{weight:.1f}", f"+ weight {weight:.1f}", "interpolation", options, fixed))
    for threshold in ABLATED_THRESHOLDS:
        name, title = f"msda-{threshold:.1f}", f"reuse + MSDA below {threshold:.1f}"
        rows.append(Row(name, title, "reuse", replace(options, threshold=threshold), replace(plain, updates=True)))
    rows += [
        Row("tfc", "TFC", "interpolation", options, Variant()),
        Row("level-1", "TFC, w from level 1", "tfc", options, Variant(level=1)),
        Row(WITHOUT_BCE, "TFC without L_bce", "tfc", options, Variant()),
    ]
    for n in (n for n in INTERVALS if n > options.keyframe_interval):
        rows.append(Row(f"interval-{n}", f"TFC, interval {n}", "tfc", replace(options, keyframe_interval=n), Variant()))
    return rows + _own_rows(settings, options)


def _own_rows(settings: InferenceOptions, options: InferenceOptions) -> list[Row]:
    """Rows that are not in the paper, except those with the ``options`` of all rows."""
    ours = {
        "aligned": ("TFC, aligned correlation", replace(options, correlation="aligned")),
        "middle": ("TFC, middle keyframes", replace(options, keyframe_position="middle")),
        "carry": (f"TFC, keyframes carry {settings.keyframe_carry:g}", settings),
    }
    rows = [Row(name, title, "tfc", own, Variant()) for name, (title, own) in ours.items() if own != options]
    both = replace(options, sides="both")
    adaptive = replace(both, keyframes="adaptive")
    larger = replace(adaptive, keyframe_scale=LARGER_KEYFRAMES)
    return [
        *rows,
        Row("blend", "image + interpolation", "image", replace(options, mode="blend"), None),
        Row("both-full-size", "TFC, both sides, all at full size", "tfc", replace(both, mode="blend"), None),
        Row("both", "TFC, both sides", "both-full-size", both, None),
        Row("adaptive", "TFC, both sides, adaptive keyframes", "both", adaptive, None),
        Row("larger", f"the same, keyframes {LARGER_KEYFRAMES:g} times as large", "adaptive", larger, None),
    ]
