"""The steps of inference with weighed keyframes: from images to features, logits and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tfcseg.inference.engine import FrameResult, IntervalNetwork
from tfcseg.inference.network_input import network_size
from tfcseg.media.frames import Image
from tfcseg.model.alignment import surroundings
from tfcseg.model.decode_head import resize, widened
from tfcseg.model.evidence import (
    CarryOver,
    Correspondence,
    LowFeatures,
    Mixture,
    SectionEnd,
    Side,
    WeightedLogits,
    compare,
    mix,
)
from tfcseg.model.ops.labelling import greatest, labels_from_cells

BETWEEN_SCALE = 2
"""Frames between keyframes are processed at 1 / this of the network's size."""


_Seen = TypeVar("_Seen", LowFeatures, WeightedLogits)


class FrameBetween(NamedTuple):
    """A frame between keyframes."""

    low: LowFeatures
    found: Correspondence | None
    """Where its positions lie in the keyframe before it, if that is known."""
    proximity: float
    """Proximity in time to that keyframe: 1 there, 0 at the next one."""
    label_size: tuple[int, int]


class PreparedKeyframe(NamedTuple):
    """The final logits of a keyframe, prepared for the frames around it."""

    final: WeightedLogits
    logits: Tensor
    """The same as (h·w, K)."""
    labels: Tensor
    """(1, h, w) at the size of the logits."""
    confidence: Tensor
    """(1, h, w) uint8, as in `FrameResult`."""
    around: Tensor
    """Its `alignment.surroundings`."""


class Steps:
    """Steps of a network. They hold no state and may run in several threads."""

    def __init__(self, network: IntervalNetwork) -> None:
        self._feeder = network
        self._network = network.network
        self._size = network.options.size
        self._keyframe_size = network.options.keyframe_size
        self._has_large_areas = network.options.half_size_share > 0
        self._curve = network.network.config.evidence

    def restored(self, carry_over: CarryOver | None) -> tuple[WeightedLogits | None, WeightedLogits | None]:
        """Carry-over of all keyframes and of the latest, in the network's device and type: it may come from a file."""
        if carry_over is None:
            return None, None
        like = next(self._network.parameters())
        dtype = widened(like[:0]).dtype
        parts = type(carry_over)(*(part.to(device=like.device, dtype=dtype) for part in carry_over))
        return parts.split() if isinstance(parts, SectionEnd) else (parts, None)

    def grid(self, image: Image) -> tuple[int, int]:
        """(h, w) of the logits of a keyframe's ``image``."""
        height, width = network_size((image.shape[0], image.shape[1]), self._keyframe_size)
        return height // 4, width // 4

    def low_features(self, images: Sequence[Image]) -> list[LowFeatures]:
        """Low-level features of frames that may lie between keyframes."""
        low = self._network.low_features(self._feeder.to_input(images, self._size // BETWEEN_SCALE))
        low = low.at_size(self.grid(images[0])).with_both_levels()
        return [LowFeatures(*(part[row : row + 1] for part in low)) for row in range(len(images))]

    def own_logits(self, images: Sequence[Image], halves: Sequence[LowFeatures]) -> list[WeightedLogits]:
        """Logits of keyframes, each by itself; ``halves`` are what `low_features` returned for them."""
        low = self._network.low_features(self._feeder.to_input(images, self._keyframe_size))
        low_half = _stacked(halves)
        half = self._network.logits_from(low_half) if self._has_large_areas else None
        logits = self._feeder.with_added(images, self._network.logits_from(low), half)
        parts = WeightedLogits.of(logits, low, low_half)
        return [WeightedLogits(*(part[row : row + 1] for part in parts)) for row in range(len(images))]

    def compare(self, keyframe: Tensor, others: Tensor, grid: tuple[int, int]) -> Correspondence:
        """Find frames in a keyframe, by the features of each (see `evidence.compare`)."""
        return compare(keyframe, others, grid, self._curve)

    def compare_closely(self, other: _Seen, frame: _Seen) -> Correspondence:
        """Find a frame in another one, by features and pixels; either both are keyframes or neither."""
        found = self.compare(other.match, frame.match, (frame.picture.shape[-2], frame.picture.shape[-1]))
        return found.placed_by_pixels(surroundings(other.picture), frame.picture)

    def prepare(self, final: WeightedLogits) -> PreparedKeyframe:
        """Prepare the final logits of a keyframe for the frames around it."""
        logits = final.logits.detach().permute(0, 2, 3, 1)
        labels, confidence = greatest(logits), self._feeder.confidence(final.logits)
        return PreparedKeyframe(final, logits.flatten(0, 2), labels, confidence, surroundings(final.picture))

    def keyframe_result(self, prepared: PreparedKeyframe, label_size: tuple[int, int]) -> FrameResult:
        """Labels of a keyframe."""
        table = prepared.logits
        labels = labels_from_cells(prepared.labels, lambda where: table.index_select(0, where), label_size)
        return FrameResult(labels[0].cpu().numpy(), 0.0, prepared.confidence[0].cpu().numpy())

    def between(
        self, frames: Sequence[FrameBetween], keyframes: Sequence[PreparedKeyframe], ends: Sequence[LowFeatures]
    ) -> list[FrameResult]:
        """Labels of frames between two keyframes, or after one; ``ends`` are the keyframes' features."""
        grid = (keyframes[0].labels.shape[-2], keyframes[0].labels.shape[-1])
        low = _stacked([frame.low for frame in frames])
        proximity = low.match.new_tensor([frame.proximity for frame in frames])
        known = [frames[0].found if len(frames) == 1 else None, None]
        sides = []
        for keyframe, end, found, near in zip(keyframes, ends, known, (proximity, 1 - proximity), strict=False):
            found = found or self.compare(end.match, low.match, grid)
            sides.append(Side(keyframe.final, found.placed_by_pixels(keyframe.around, low.picture), near))
        mixture = mix(sides)
        computed = mixture.own_fraction.nonzero()[:, 0]
        own: dict[int, Tensor] = {}
        if len(computed):
            logits = self._network.logits_from(LowFeatures(*(part[computed] for part in low)))
            own = dict(zip(computed.tolist(), resize(logits, grid), strict=True))
        shares, similarity = mixture.own_fraction.tolist(), mixture.similarity.float().cpu().numpy()
        results = []
        for row, frame in enumerate(frames):
            labels, confidence = self._labels(mixture, row, keyframes, own.get(row), frame.label_size)
            results.append(FrameResult(labels, 0.0, confidence, similarity[row], shares[row]))
        return results

    def _labels(
        self,
        mixture: Mixture,
        row: int,
        keyframes: Sequence[PreparedKeyframe],
        own: Tensor | None,
        size: tuple[int, int],
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Labels (H, W) of frame ``row``, and their confidence (h, w)."""
        tables = [keyframe.logits for keyframe in keyframes]
        shape = keyframes[0].labels.shape
        if own is not None:
            logits = mixture.weighted_mean(row, tables).view(*shape, -1).permute(0, 3, 1, 2)
            labels, confidence = self._feeder.to_labels(torch.lerp(logits, own[None], mixture.own[row : row + 1]), size)
            return labels[0], confidence[0]
        # Where both keyframes agree on a label, so does every mean of their logits: most are never computed.
        first, *second = mixture.gathered(row, [keyframe.labels.view(-1) for keyframe in keyframes])
        means = mixture.weighted_mean(row, [each.confidence.view(-1, 1).to(tables[0].dtype) for each in keyframes])
        cells, certain = first, means.round_().to(torch.uint8).view(-1)
        if second:
            cells = first.clone()
            where = (first != second[0]).nonzero()[:, 0]
            logits = mixture.weighted_mean(row, tables, where)
            cells[where] = greatest(logits)
            certain[where] = self._feeder.confidence(logits[:, :, None, None]).view(-1)
        found = labels_from_cells(cells.view(shape), lambda where: mixture.weighted_mean(row, tables, where), size)
        return found[0].cpu().numpy(), certain.view(shape[1:]).cpu().numpy()


def _stacked(low: Sequence[LowFeatures]) -> LowFeatures:
    if len(low) == 1:  # `torch.cat` would copy it
        return low[0]
    return LowFeatures(*(torch.cat(parts) for parts in zip(*low, strict=True)))
