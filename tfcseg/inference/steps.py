"""The steps of two-sided inference on a model: from images to features, logits and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tfcseg.inference.engine import FrameResult, IntervalNetwork
from tfcseg.inference.network_input import network_size
from tfcseg.media.frames import Image
from tfcseg.model.decode_head import resize
from tfcseg.model.evidence import Glimpse, HandedOn, Likeness, Mixture, Opinion, Side, TwoOpinions, compare, mix
from tfcseg.model.ops.labelling import greatest, labels_from_cells

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


class Conclusion(NamedTuple):
    """The final opinion of a keyframe, prepared for the frames around it."""

    opinion: Opinion
    logits: Tensor
    """The opinion's (h·w, K)."""
    labels: Tensor
    """(1, h, w) at the size of the logits."""
    sure: Tensor
    """(1, h, w) uint8, as `FrameResult.confidence`."""


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
        seen = seen if self._scale == 1 else seen.finer()
        return [Glimpse(*(part[row : row + 1] for part in seen)) for row in range(len(images))]

    def opinions(self, images: Sequence[Image]) -> list[Opinion]:
        """Logits and weights of keyframes on their own."""
        found = self._network.opinion(self._feeder.to_input(images, self._size))
        return [Opinion(*(part[row : row + 1] for part in found)) for row in range(len(images))]

    def compare(self, keyframe: Tensor, others: Tensor, grid: tuple[int, int]) -> Likeness:
        """Similarity of frames to one frame, from the features of each (see `evidence.compare`)."""
        return compare(keyframe, others, grid, self._curve)

    def conclude(self, opinion: Opinion) -> Conclusion:
        """Prepare the final opinion of a keyframe for the frames around it."""
        logits = opinion.logits.detach().permute(0, 2, 3, 1)
        labels, sure = greatest(logits), self._feeder.sureness(opinion.logits)
        return Conclusion(opinion, logits.flatten(0, 2), labels, sure)

    def keyframe_result(self, concluded: Conclusion, label_size: tuple[int, int]) -> FrameResult:
        """Labels of a keyframe."""
        table = concluded.logits
        labels = labels_from_cells(concluded.labels, lambda where: table.index_select(0, where), label_size)
        return FrameResult(labels[0].cpu().numpy(), 0.0, concluded.sure[0].cpu().numpy())

    def between(
        self, places: Sequence[Place], keyframes: Sequence[Conclusion], glimpses: Sequence[Glimpse]
    ) -> list[FrameResult]:
        """Labels of frames between two keyframes, or after the last one, from their compared features."""
        grid = (keyframes[0].labels.shape[-2], keyframes[0].labels.shape[-1])
        seen = Glimpse(*(torch.cat(parts) for parts in zip(*(place.glimpse for place in places), strict=True)))
        near = seen.match.new_tensor([place.nearness for place in places])
        known = places[0].like if len(places) == 1 else None
        first = known or self.compare(glimpses[0].match, seen.match, grid)
        sides = [Side(keyframes[0].opinion, first, near)]
        if len(keyframes) > 1:
            sides.append(Side(keyframes[1].opinion, self.compare(glimpses[1].match, seen.match, grid), 1 - near))
        mixture = mix(sides)
        asked = mixture.own_fraction.nonzero()[:, 0]
        own = dict(zip(asked.tolist(), self._own(seen, asked, grid), strict=True))
        shares, similarity = mixture.own_fraction.tolist(), mixture.similarity.float().cpu().numpy()
        results = []
        for row, place in enumerate(places):
            labels, sure = self._said(mixture, row, keyframes, own.get(row), place.label_size)
            results.append(FrameResult(labels, 0.0, sure, similarity[row], shares[row]))
        return results

    def _own(self, seen: Glimpse, asked: Tensor, grid: tuple[int, int]) -> Tensor | list[Tensor]:
        """Logits (N, K, h, w) of the ``asked`` (N,) frames by themselves."""
        return resize(self._network.say(Glimpse(*(part[asked] for part in seen))), grid) if len(asked) else []

    def _said(
        self,
        mixture: Mixture,
        row: int,
        keyframes: Sequence[Conclusion],
        own: Tensor | None,
        size: tuple[int, int],
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Labels (H, W) of frame ``row``, and their confidence (h, w)."""
        tables = [keyframe.logits for keyframe in keyframes]
        shape = keyframes[0].labels.shape
        if own is not None:
            logits = mixture.added_up(row, tables).view(*shape, -1).permute(0, 3, 1, 2)
            all_labels, all_sure = self._feeder.said(torch.lerp(logits, own[None], mixture.own[row : row + 1]), size)
            return all_labels[0], all_sure[0]
        # Where both keyframes agree on a label, so does every mean of their logits: most are never computed.
        labels = mixture.taken(row, [keyframe.labels.view(-1) for keyframe in keyframes])
        sure = mixture.added_up(row, [keyframe.sure.view(-1, 1).to(tables[0].dtype) for keyframe in keyframes])
        coarse, sure = labels[0], sure.round_().to(torch.uint8).view(-1)
        if len(labels) > 1:
            coarse = coarse.clone()
            where = (labels[0] != labels[1]).nonzero()[:, 0]
            logits = mixture.added_up(row, tables, where)
            coarse[where] = greatest(logits)
            sure[where] = self._feeder.sureness(logits[:, :, None, None]).view(-1)
        found = labels_from_cells(coarse.view(shape), lambda where: mixture.added_up(row, tables, where), size)
        return found[0].cpu().numpy(), sure.view(shape[1:]).cpu().numpy()
