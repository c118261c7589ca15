"""The TFC network: a SegFormer-like image network at keyframes, correlation and sparse updates between them.

Shapes: B intervals (one keyframe each), T non-keyframes per interval, D embedding width, K classes, H W image
(multiples of 32), h w = H/4, W/4. The network is stateless; what later frames need of a keyframe is a `Keyframe`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfcseg.model.alignment import Shift, find_shift, move
from tfcseg.model.backbones.efficientnet_lite import EfficientNetLite0
from tfcseg.model.backbones.inverted_residual import fold_layers
from tfcseg.model.backbones.mix_transformer import MIT_VARIANTS, MixTransformer, build_mix_transformer
from tfcseg.model.backbones.mosaic import Mosaic
from tfcseg.model.config import NUM_LEVELS, ModelConfig
from tfcseg.model.correlation import (
    Points,
    inconsistent_points,
    interpolate,
    interpolation_weight,
    per_frame,
    similarity,
)
from tfcseg.model.decode_head import DecodeHead, pointwise, resize, widened
from tfcseg.model.deformable import SparseUpdate
from tfcseg.model.evidence import LowFeatures
from tfcseg.model.large_areas import correction
from tfcseg.model.ops.fused import convolve
from tfcseg.model.ops.sampling import Level
from tfcseg.model.options import InferenceOptions
from tfcseg.model.things import Things, as_logits

Backbone: TypeAlias = MixTransformer | EfficientNetLite0 | Mosaic
"""Four levels (``channels``) at strides 4, 8, 16 and 32 (MOSAIC: 16) in two halves: ``encode_low`` and ``encode_high``
(eq. 1)."""


class Keyframe(NamedTuple):
    """What frames up to the next keyframe need of this one (B rows each)."""

    embedding: Tensor  # z_k (B, D, h, w)
    logits: Tensor  # (B, K, h, w)
    level2: Tensor  # x̂2_k at stride 4 (B, D, h, w), for eq. 6; if folded, fewer channels with equal cosines
    match: Tensor  # the same before its resize (B, ·, H/8, W/8); searched by aligned correlation
    high: Tensor  # levels 3 and 4 of the fused sum (B, D, h, w); with eq. 4 the same for every frame of the interval
    levels: tuple[Tensor, Tensor]  # x3 and x4 (B, C_l, h_l, w_l)
    added: Tensor | None = None  # what half the size adds to all logits (B, K, h, w): large_areas.py, things.py

    def with_added(self, added: Tensor | None) -> Keyframe:
        """The same, with ``added`` (B, K, h, w) in its logits; None: nothing."""
        return self if added is None else self._replace(logits=self.logits + added, added=added)


class Between(NamedTuple):
    """Frames between keyframes (B·T rows), before they are compared with their keyframe."""

    x1: Tensor  # (B·T, C_1, h, w)
    x2: Tensor  # (B·T, C_2, H/8, W/8)
    embedding: Tensor  # z_t (B·T, D, h, w)
    level2: Tensor  # as `Keyframe.level2` (B·T, ·, h, w), for eq. 6
    shift: Shift | None  # where positions lie in their keyframe; None with the paper's correlation or if nothing moved

    def moved(self, keyframe: Tensor) -> Tensor:
        """(B, C, h, w) of keyframes → (B·T, C, h, w), each position from where it was."""
        return move(keyframe, None if self.shift is None else self.shift.rows, self.x1.shape[0])


class NonKeyframes(NamedTuple):
    """Results for the B·T frames between keyframes."""

    logits: Tensor  # (B·T, K, h, w)
    similarity: Tensor  # w_t of eq. 6, unclamped (B·T, h, w)
    updated_fraction: Tensor  # share of points updated by sparse MSDA (B·T,), float32
    shift: Shift | None  # where positions lie in their keyframe; None with the paper's correlation or if nothing moved

    @classmethod
    def of(cls, found: Between, logits: Tensor, w: Tensor, points: Points | None = None) -> NonKeyframes:
        """With logits and w_t (B·T, 1, h, w) of ``found``, updated at ``points``."""
        frames, _, height, width = w.shape
        updated = w.new_zeros(frames) if points is None else torch.bincount(points.frame, minlength=frames)
        return cls(logits, w[:, 0], updated.float() / (height * width), found.shift)


class TFCSegmenter(nn.Module):
    """Frames share the backbone and the decode head; only the sparse update has its own parameters (0.8 M at D 256)."""

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.decode_head = DecodeHead(backbone.channels, config.embed_dim, config.num_classes)
        self.update = SparseUpdate(config.embed_dim, config.heads, config.points, config.ffn_dim)
        doubted = [number for number, thing in enumerate(config.things) if thing in config.doubted]
        self.things = Things(len(config.things), doubted, len(config.rivals)) if config.things else None
        self.folded_values = nn.ModuleList()
        self.folded_similarity = nn.ModuleList()

    def keyframe(self, image: Tensor) -> tuple[Tensor, Keyframe]:
        """Eqs 1 to 3: (B, 3, H, W) normalised → logits (B, K, h, w) and what the interval's other frames need."""
        x1, x2 = self.backbone.encode_low(image)
        z, high, levels = self.embed(x1, x2)
        match = self._correlated(x2)
        logits, level2 = self._logits(z), resize(match, (x1.shape[-2], x1.shape[-1]))
        return logits, Keyframe(z, logits, level2, match, high=high, levels=levels)

    def image(self, image: Tensor) -> Tensor:
        """The image network alone: (B, 3, H, W) → logits (B, K, h, w), bit-identical to `keyframe`."""
        return self._logits(self.embed(*self.backbone.encode_low(image))[0])

    def low_features(self, images: Tensor) -> LowFeatures:
        """Run the low stages on images (T, 3, H, W): features to compare, and to continue from in `logits_from`."""
        x1, x2 = self.backbone.encode_low(images)
        return LowFeatures(x1, x2, F.normalize(self._correlated(x2), dim=1), widened(images))

    def logits_from(self, low: LowFeatures) -> Tensor:
        """Logits (T, K, h, w) of the image network, continued from low-level features."""
        return self._logits(self.embed(low.x1, low.x2)[0])

    def added_by_half_size(
        self, logits: Tensor, images: Tensor, options: InferenceOptions, half: Tensor | None = None
    ) -> Tensor:
        """What half the size adds to ``logits`` (T, K, h, w), at its shares in ``options``: large areas and things.

        ``images`` (T, 3, H', W') are seen at half the size; ``half`` (T, K, ·, ·) are their logits, if known already.
        """
        parts = []
        if options.half_size_share:
            missing = correction(logits, self.image(images) if half is None else half, options.half_size_share)
            parts.append(resize(missing, (logits.shape[-2], logits.shape[-1])))
        if options.things_share:
            assert self.things is not None
            leads = options.things_share * self.things(images)
            parts.append(as_logits(leads, (*self.config.rivals, *self.config.things), logits.shape))
        return reduce(Tensor.add_, parts).to(logits.dtype)

    def embed(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Eqs 1 and 2 from the low stages on: z (B, D, h, w), its part from levels 3 and 4, x3 and x4."""
        head = self.decode_head
        x3, x4 = self.backbone.encode_high(x2)
        size = (x1.shape[-2], x1.shape[-1])
        high = head.fuse_high(x3, x4, size)
        return head.embed(x1, head.fuse_level(x2, 1, size).add_(high)), high, (x3, x4)

    def non_keyframes(self, images: Tensor, memory: Keyframe, options: InferenceOptions | None = None) -> NonKeyframes:
        """Eqs 4 to 11 for any number of frames per keyframe at once.

        images (B·T, 3, H, W), the frames of an interval together; ``memory`` of the B keyframes. Mode ``reuse`` is eq.
        4 alone (no interpolation, no MSDA). Options that are None take the configuration's values. Frames refer only
        to their keyframe, never to each other.
        """
        used = self.completed(options)
        found = self.between(*self.backbone.encode_low(images), memory, used)
        w = similarity(found.moved(memory.level2), found.level2)
        if used.mode == "reuse":
            return NonKeyframes.of(found, self._own_logits(found, memory), w)
        w_hat = interpolation_weight(w)
        logits = self.interpolated(found, memory, w_hat)
        if not self.config.repairs:
            return NonKeyframes.of(found, logits, w)
        points = inconsistent_points(w, used.threshold)
        if points.frame.numel():
            logits = replace_points(logits, points, self.updated(found, memory, w_hat, points))
        return NonKeyframes.of(found, logits, w, points)

    def completed(self, options: InferenceOptions | None) -> InferenceOptions:
        """Fill options that are None from the configuration."""
        return (options or InferenceOptions()).completed_by(self.config.defaults)

    def between(self, x1: Tensor, x2: Tensor, memory: Keyframe, options: InferenceOptions) -> Between:
        """Eqs 2 and 4 from the low levels (B·T, C_l, h_l, w_l) on."""
        match = self._correlated(x2)
        shift = find_shift(memory.match, match) if options.correlation == "aligned" else None
        z_t = self._mixed_embedding(x1, x2, memory, shift)
        return Between(x1, x2, z_t, resize(match, (x1.shape[-2], x1.shape[-1])), shift)

    def _mixed_embedding(self, x1: Tensor, x2: Tensor, memory: Keyframe, shift: Shift | None) -> Tensor:
        """Eqs 2 and 4: z_t (B·T, D, h, w) of the mixed pyramid (x1_t, x2_t, x3_k, x4_k).

        Where the scene moved, levels 3 and 4 move along: their sum at stride 4 is corrected by the change that moving
        makes at stride 8, a quarter of the positions. Elsewhere the correction is zero and the sum is the keyframe's.
        """
        head = self.decode_head
        frames, size, coarse = x1.shape[0], (x1.shape[-2], x1.shape[-1]), (x2.shape[-2], x2.shape[-1])
        second = head.fuse_level(x2, 1, coarse)
        if shift is not None:
            high = head.fuse_high(*memory.levels, coarse)
            second = second.add_(move(high, shift.coarse_rows, frames).sub_(per_frame(high, frames)))
        return head.embed(x1, resize(second, size).add_(per_frame(memory.high, frames)))

    def interpolated(self, found: Between, memory: Keyframe, w_hat: Tensor) -> Tensor:
        """Eq. 7: logits (B·T, K, h, w) for ŵ_t (B·T, 1, h, w).

        The classifier is linear, so its K logits can be interpolated instead of D embeddings.
        """
        return interpolate(found.moved(memory.logits), self._own_logits(found, memory), w_hat)

    def _own_logits(self, found: Between, memory: Keyframe) -> Tensor:
        """Logits (B·T, K, h, w) of frames before interpolation."""
        logits = self._logits(found.embedding)
        return logits if memory.added is None else logits + found.moved(memory.added)

    def updated(self, found: Between, memory: Keyframe, w_hat: Tensor, points: Points) -> Tensor:
        """Eqs 7 to 11 at the N ``points``: logits (N, K)."""
        frames, _, h, w = found.embedding.shape
        shift = found.shift
        interval = points.frame // (frames // memory.embedding.shape[0])
        position = (points.frame * h + points.y) * w + points.x
        there = (interval * h + points.y) * w + points.x if shift is None else shift.rows[position]
        z_k, z_t, weight = (_vectors(widened(x)) for x in (memory.embedding, found.embedding, w_hat))
        query = interpolate(z_k[there], z_t[position], weight[position])
        raw = [widened(x) for x in (found.x1, found.x2, *memory.levels)]
        levels = [self._level(x, level, len(position)) for level, x in enumerate(raw)]
        stacks = (points.frame, points.frame, interval, interval)
        cells = None if shift is None else shift.cells
        logits = self.decode_head.classify_points(self.update(query, points, (h, w), levels, stacks, shift=cells))
        return logits if memory.added is None else logits + _vectors(memory.added)[there]

    @torch.no_grad()
    def fold(self) -> TFCSegmenter:
        """Prepare for inference: eval mode, constant matrices multiplied once. Exact up to rounding, and permanent.

        Norms go into convolutions, projections into the fuse layer and into MSDA's values.

        Cosines need only inner products of M (x, 1) with M = [P_2 b_2]; with M = QR these are the inner products of R
        (x, 1), which has C_2 + 1 channels instead of D.
        """
        self.eval()
        if self.folded_values:
            return self
        fold_layers(self.backbone)
        value = self.update.attention.value
        for level in range(NUM_LEVELS):
            weight, bias = self.decode_head.projection(level)
            self.folded_values.append(pointwise(value.weight @ weight, value.weight @ bias + value.bias))
        weight, bias = self.decode_head.projection(1)
        upper = torch.linalg.qr(torch.cat([weight, bias[:, None]], dim=1).double(), mode="r").R.to(weight.dtype)
        self.folded_similarity.append(pointwise(upper[:, :-1], upper[:, -1]))
        self.decode_head.fold()
        return self.eval()  # the new layers too

    def to_device(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move all weights and convert them, but those of the sparse update to float32 on a CPU: in half precision,
        oneDNN keeps something for every number of points there."""
        sparse = (self.update, self.folded_values)
        for part in self.children():
            is_wide = part in sparse and device.type == "cpu"
            part.to(device=device, dtype=torch.float32 if is_wide else dtype)

    def _level(self, x: Tensor, level: int, count: int) -> Level:
        """What MSDA samples of a level (S, C_l, h_l, w_l) at ``count`` points."""
        attention = self.update.attention
        if self.folded_values:
            folded = cast(nn.Conv2d, self.folded_values[level])
            return attention.level(x, folded.weight[:, :, 0, 0], cast(Tensor, folded.bias), count)
        # Gradients into the gathered values would cost half of a training step; freezing their projection avoids them.
        with torch.set_grad_enabled(torch.is_grad_enabled() and attention.value.weight.requires_grad):
            return attention.project_value(self.decode_head.project(x, level))

    def _correlated(self, x2: Tensor) -> Tensor:
        """What eq. 6 correlates, before its resize: x̂2, or if folded, a vector with the same inner products."""
        if self.folded_similarity:
            return widened(convolve(x2, cast(nn.Conv2d, self.folded_similarity[0])))
        return widened(self.decode_head.project(x2, 1))

    def _logits(self, z: Tensor) -> Tensor:
        """Logits (B, K, h, w) of embeddings (B, D, h, w)."""
        return widened(self.decode_head.classify(z))


def _vectors(x: Tensor) -> Tensor:
    """(S, C, h, w) → (S·h·w, C), a view if x is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def replace_points(logits: Tensor, points: Points, values: Tensor) -> Tensor:
    """Logits (S, K, h, w) with ``values`` (N, K) at the points; may overwrite ``logits``."""
    cells = logits.permute(0, 2, 3, 1)
    put = cells.index_put if torch.is_grad_enabled() else cells.index_put_
    return put((points.frame, points.y, points.x), values.to(logits.dtype)).permute(0, 3, 1, 2)


BACKBONES: Mapping[str, Callable[[], Backbone]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "mosaic": Mosaic,
    **{f"mit_{variant}": partial(build_mix_transformer, variant) for variant in MIT_VARIANTS},
}


def build_segmenter(config: ModelConfig) -> TFCSegmenter:
    """Network with random weights for ``config``; ValueError for an unknown backbone."""
    if config.backbone not in BACKBONES:
        raise ValueError(f"unknown backbone {config.backbone!r}")
    return TFCSegmenter(config, BACKBONES[config.backbone]())
