"""Rows of the ablation table: the network with steps of the method left out or replaced, and the row it builds on.

Only frames between keyframes change. Variants use the network's weights without further training. Shapes as in
model/tfc.py: B keyframes, T frames per keyframe, K classes, h w grid at stride 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from tfcseg.errors import UsageError
from tfcseg.model.alignment import find_shift, move
from tfcseg.model.correlation import inconsistent_points, interpolate, interpolation_weight, similarity
from tfcseg.model.decode_head import resize
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import Keyframe, NonKeyframes, TFCSegmenter
from tfcseg.research.ablation.paper import ABLATED_THRESHOLDS, FIXED_WEIGHTS, INTERVALS, WITHOUT_BCE, row_names
from tfcseg.spelling import hint

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


@dataclass(frozen=True, slots=True)
class Row:
    """A way of computing frames between keyframes; without ``variant`` the network is unchanged."""

    name: str
    title: str
    builds_on: str | None
    """Row that its scores are compared with."""
    options: InferenceOptions
    variant: Variant | None

    @property
    def is_full_method(self) -> bool:
        """Whether no step is left out, so that its similarities are worth measuring."""
        return self.variant is not None and self.variant.updates and self.variant.weight == "soft"


def check_rows(names: Sequence[str], *, has_other_weights: bool) -> None:
    """Raise UsageError unless ``names`` are rows of the table."""
    known = row_names()
    for name in names:
        if name not in known:
            raise UsageError(f"no row {name!r}; {hint(name, known)}")
    if not names:
        raise UsageError(f"no row is given; there are {', '.join(known)}")
    if len(set(names)) < len(names):
        raise UsageError(f"a row is named twice: {','.join(names)}")
    if WITHOUT_BCE in names and not has_other_weights:
        raise UsageError(f"row {WITHOUT_BCE} needs weights trained without L_bce; give them with --without-bce")


def build_rows(settings: InferenceOptions) -> list[Row]:
    """All rows for the ``settings`` of the full method, in the table's order.

    Keyframes carry over results only in row ``carry`` and in rows with both sides, since this would hide other effects.
    """
    settings = replace(settings, sides="one", keyframes="fixed")
    options = replace(settings, keyframe_carry=0.0)
    return [*_rows_of_steps(options), *_rows_of_intervals(options), *_own_rows(settings, options)]


def _rows_of_steps(options: InferenceOptions) -> list[Row]:
    plain = Variant(weight=0.0, updates=False)
    rows = [
        Row("image", "image", None, replace(options, mode="image", keyframe_interval=1), None),
        Row("reuse", "feature reuse", "image", options, plain),
        Row("interpolation", "+ interpolation", "reuse", options, replace(plain, weight="soft")),
        Row("hard", "+ hard weights", "interpolation", options, replace(plain, weight="hard")),
    ]
    rows += [
        Row(f"weight-{weight:.1f}", f"+ weight {weight:.1f}", "interpolation", options, replace(plain, weight=weight))
        for weight in FIXED_WEIGHTS
    ]
    rows += [
        Row(
            f"msda-{threshold:.1f}",
            f"reuse + MSDA below {threshold:.1f}",
            "reuse",
            replace(options, threshold=threshold),
            replace(plain, updates=True),
        )
        for threshold in ABLATED_THRESHOLDS
    ]
    return [
        *rows,
        Row("tfc", "TFC", "interpolation", options, Variant()),
        Row("level-1", "TFC, w from level 1", "tfc", options, Variant(level=1)),
        Row(WITHOUT_BCE, "TFC without L_bce", "tfc", options, Variant()),
    ]


def _rows_of_intervals(options: InferenceOptions) -> list[Row]:
    longer = [interval for interval in INTERVALS if interval > options.keyframe_interval]
    changed = [replace(options, keyframe_interval=interval) for interval in longer]
    return [
        Row(f"interval-{own.keyframe_interval}", f"TFC, interval {own.keyframe_interval}", "tfc", own, Variant())
        for own in changed
    ]


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
    return [
        *rows,
        Row("blend", "image + interpolation", "image", replace(options, mode="blend"), None),
        Row("both-full-size", "TFC, both sides, all at full size", "tfc", replace(both, mode="blend"), None),
        Row("both", "TFC, both sides", "both-full-size", both, None),
        Row("adaptive", "TFC, both sides, adaptive keyframes", "both", adaptive, None),
    ]
