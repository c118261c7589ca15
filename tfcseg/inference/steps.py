"""The steps of two-sided inference on a model: from images to features, logits and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tfcseg.inference.engine import FrameResult, IntervalNetwork
from tfcseg.inference.network_input import network_size
from tfcseg.media.frames import Image
from tfcseg.model.evidence import Glimpse, HandedOn, Likeness, Opinion, Side, TwoOpinions, between, compare

BETWEEN_SCALE = 2
"""Frames between keyframes are processed at 1 / this of the network's size (at full size in mode ``blend``)."""


class Place(NamedTuple):
    """A frame between keyframes."""

    glimpse: Glimpse
    like: Likeness | None
    """Its similarity to the keyframe before it, if that is known."""
    nearness: float
    """Nearness to that keyframe: 1 there, 0 at the next one."""
    label_size: tuple[int, int]


class Steps:
    """Steps of a network. They hold no state and may run in several threads."""

    def __init__(self, network: IntervalNetwork) -> None:
        self._feeder = network
        self._network = network.network
        self._size = network.options.size
        self._scale = BETWEEN_SCALE if network.options.mode == "tfc" else 1
        self._curve = network.network.config.evidence

    def restored(self, handed_on: HandedOn | None) -> tuple[Opinion | None, Opinion | None]:
        """Carry-over of all keyframes and of the latest, in the network's device and type: it may come from a file."""
        if not isinstance(handed_on, Opinion | TwoOpinions):
            return None, None
        like = next(self._network.parameters())
        parts = type(handed_on)(*(part.to(device=like.device, dtype=like.dtype) for part in handed_on))
        return parts.split() if isinstance(parts, TwoOpinions) else (parts, None)

    def grid(self, image: Image) -> tuple[int, int]:
        """(h, w) of the logits of a keyframe's ``image``."""
        height, width = network_size((image.shape[0], image.shape[1]), self._size)
        return height // 4, width // 4

    def glimpses(self, images: Sequence[Image]) -> list[Glimpse]:
        """Low-level features of frames that may lie between keyframes."""
        seen = self._network.glimpse(self._feeder.to_input(images, self._size // self._scale))
        return [Glimpse(*(part[row : row + 1] for part in seen)) for row in range(len(images))]

    def opinions(self, images: Sequence[Image]) -> list[Opinion]:
        """Logits and weights of keyframes on their own."""
        found = self._network.opinion(self._feeder.to_input(images, self._size))
        return [Opinion(*(part[row : row + 1] for part in found)) for row in range(len(images))]

    def compare(self, keyframe: Tensor, others: Tensor, grid: tuple[int, int]) -> Likeness:
        """Similarity of frames to one frame, from the features of each (see `evidence.compare`)."""
        return compare(keyframe, others, grid, self._curve)

    def keyframe_result(self, opinion: Opinion, label_size: tuple[int, int]) -> FrameResult:
        """Labels of a keyframe."""
        labels, sure = self._feeder.said(opinion.logits, label_size)
        return FrameResult(labels[0], 0.0, sure[0])

    def between(
        self, places: Sequence[Place], keyframes: Sequence[Opinion], glimpses: Sequence[Glimpse]
    ) -> list[FrameResult]:
        """Labels of frames between two keyframes, or after the last one, from their compared features."""
        grid = (keyframes[0].logits.shape[-2], keyframes[0].logits.shape[-1])
        seen = Glimpse(*(torch.cat(parts) for parts in zip(*(place.glimpse for place in places), strict=True)))
        near = seen.match.new_tensor([place.nearness for place in places])
        known = places[0].like if len(places) == 1 else None
        first = known or self.compare(glimpses[0].match, seen.match, grid)
        sides = [Side(keyframes[0], first, near)]
        if len(keyframes) > 1:
            sides.append(Side(keyframes[1], self.compare(glimpses[1].match, seen.match, grid), 1 - near))
        found = between(sides, lambda rows: self._network.say(Glimpse(*(part[rows] for part in seen))))
        shares, similarity = found.own_fraction.tolist(), found.similarity.float().cpu().numpy()
        results = []
        for row, place in enumerate(places):
            labels, sure = self._feeder.said(found.logits[row : row + 1], place.label_size)
            results.append(FrameResult(labels[0], 0.0, sure[0], similarity[row], shares[row]))
        return results
