"""Link consecutive frames: where things moved, and whether the same things are there.

Optical flow (OpenCV DIS) in both directions follows motion: it places edges more finely than features at stride 8 can.
The low-level features of a network, correlated along the flow between some frames (eq. 6), and its evidence curve
(model/evidence.py) tell how far to trust it. Positions to which the flow does not return are hidden, and take no votes
over.

Letters: h w grid of the flow, H W image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.votes import CARRY, Transfer, Weights
from tfcseg.media.frames import Image
from tfcseg.model.correlation import similarity
from tfcseg.model.evidence import evidence
from tfcseg.shrinking import halved

SIZE, FEATURE_SIZE = 40, 96
"""Short side in px at which the flow follows frames, and at which a network sees them."""

FEATURES_EVERY = 3  # frames from one whose features are compared to the next

SAME_SCENE = 0.75
"""Share of positions that are found again, below which frames are not linked. From one frame to the next it is mostly
0.85 to 1, also from a driving car; 0.4 to 1 a quarter of a second later, and 0 to 0.1 across cuts."""

_LENGTH_SHARE, _GAP = 0.01, 0.125
"""Squared distance in px by which flow there and back may miss: this share of the squared lengths, plus a constant."""

_HIDDEN = 4
"""A position counts as hidden from this many times that distance on: what is nearly found again is the same thing."""

Flows: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
"""(h, w, 2) each: x and y from a frame to the one before, and from that to the frame, in px of this grid."""


class FrameFeatures(NamedTuple):
    """Features of a frame that are compared."""

    size: tuple[int, int]  # (H, W)
    gray: NDArray[np.uint8]  # (h, w)
    match: Tensor | None  # (1, C, h8, w8) low-level features; None: only the flow follows this frame


class Link(NamedTuple):
    """Between a frame and the one before it."""

    back: Transfer  # what the frame takes over from the one before it
    forth: Transfer  # what the one before it takes over from the frame
    similarity: float | None
    """Mean of w of eq. 6 along the flow between the last frames that were compared; None before any were."""


class Linker:
    """Compares frames of one video, in order; one thread at a time."""

    def __init__(self, network: IntervalNetwork) -> None:
        self._network = network
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(0)
        self._path: _Path | None = None
        self._similarity: float | None = None

    @torch.inference_mode()
    def features(self, images: Sequence[Image]) -> list[FrameFeatures]:
        """Compute what is compared of (H, W, 3) RGB images of one size: features of the first, the fourth, and so on.
        They change little in three frames, and those of several images at once take half the time."""
        size = (images[0].shape[0], images[0].shape[1])
        images = [halved(image, (2 * FEATURE_SIZE,) * 2) for image in images]
        height, width = images[0].shape[:2]
        scale = min(1.0, SIZE / min(height, width))
        size_wh = (max(16, round(width * scale)), max(16, round(height * scale)))
        batch = self._network.to_input(images[::FEATURES_EVERY], FEATURE_SIZE)
        matches = self._network.network.low_features(batch).match.float().cpu()
        features = []
        for at, image in enumerate(images):
            gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size_wh, interpolation=cv2.INTER_AREA)
            match = None if at % FEATURES_EVERY else matches[at // FEATURES_EVERY][None]
            features.append(FrameFeatures(size, np.asarray(gray, np.uint8), match))
        return features

    def link(self, before: FrameFeatures, now: FrameFeatures) -> Link | None:
        """Link a frame to the one before it; None if they show different scenes."""
        is_same_scene = before.size == now.size
        if is_same_scene:
            flows = self._between(now, before), self._between(before, now)
            missed = _missed(*flows), _missed(flows[1], flows[0])
            is_same_scene = all(np.count_nonzero(each <= 1) >= SAME_SCENE * each.size for each in missed)
        if not is_same_scene:
            self._path = self._similarity = None
            return None
        if before.match is not None:
            self._path = _Path.of(before.match, flows)
        elif self._path is not None:
            self._path = self._path.longer(flows)
        alike = None
        if self._path is not None and now.match is not None:
            alike = self._path.similarity(now.match)
            self._similarity = float(alike[0].mean())
        carry = self._carry(alike, missed)
        back, forth = (Transfer(_steps(flow, now.size), kept) for flow, kept in zip(flows, carry, strict=True))
        return Link(back, forth, self._similarity)

    def _carry(self, alike: Tensor | None, missed: Sequence[NDArray[np.float32]]) -> list[Weights]:
        """(h, w) shares of a lead that are kept: by the root of the evidence, as leads are taken along many times."""
        height, width = missed[0].shape
        kept = [np.float32(255 * CARRY)] * 2
        if alike is not None:
            trust = 255 * CARRY * evidence(alike, self._network.network.config.evidence).sqrt()
            kept = [cv2.resize(each, (width, height)) for each in trust[:, 0].numpy()]
        return [np.rint(each * (far <= _HIDDEN)).astype(np.uint8) for each, far in zip(kept, missed, strict=True)]

    def _between(self, here: FrameFeatures, there: FrameFeatures) -> NDArray[np.float32]:
        # An array of the frame's size would be taken as a first guess of the flow; any other size means there is none.
        return np.array(self._flow.calc(here.gray, there.gray, np.empty((1, 1, 2), np.float32)), np.float32)


class _Path(NamedTuple):
    """The way from a frame with features to a later one, on the grid of the features."""

    start: Tensor  # (1, C, h8, w8) features of that frame
    back: NDArray[np.float32]  # (h8, w8, 2) x and y from the later frame to that one, in cells
    forth: NDArray[np.float32]  # the same the other way

    @classmethod
    def of(cls, start: Tensor, flows: Flows) -> _Path:
        """The way to the next frame, along ``flows`` back and forth."""
        return cls(start, *(_coarse(flow, start) for flow in flows))

    def longer(self, flows: Flows) -> _Path:
        """The way to the frame after, along ``flows`` from there and to there."""
        back, forth = (_coarse(flow, self.start) for flow in flows)
        return self._replace(back=_chained(back, self.back), forth=_chained(self.forth, forth))

    def similarity(self, match: Tensor) -> Tensor:
        """(2, 1, h8, w8) similarity of the later frame, with features ``match``, to the first, and the other way."""
        rows, columns = match.shape[-2:]
        # From cells to -1 … 1, as `F.grid_sample` counts.
        places = _positions(rows, columns) + 0.5 + np.stack([self.back, self.forth])
        grid = torch.from_numpy(places * np.array([2 / columns, 2 / rows], np.float32) - 1)
        moved = F.grid_sample(torch.cat([self.start, match]), grid, padding_mode="border", align_corners=False)
        return similarity(moved, torch.cat([match, self.start]))


def still_link(features: FrameFeatures) -> Link:
    """The link to a frame that shows the same picture."""
    transfer = Transfer(None, np.full(features.gray.shape, round(255 * CARRY), np.uint8))
    return Link(transfer, transfer, 1.0)


def _missed(flow: NDArray[np.float32], back: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) by how much going along ``flow`` and ``back`` misses the start, 1 being what rounding may do. The test of
    Sundaram et al., ECCV 2010."""
    height, width = flow.shape[:2]
    there = cv2.add(flow, _positions(height, width))
    returned = _at(back, there)
    gap = _squares(cv2.add(returned, flow))
    missed = gap / (_LENGTH_SHARE * (_squares(flow) + _squares(returned)) + _GAP)
    is_inside = cv2.inRange(there, (-0.5, -0.5), (width - 0.5, height - 0.5))
    return np.where(is_inside > 0, missed, np.float32(np.inf))


def _squares(vectors: Any) -> NDArray[np.float32]:
    return np.asarray(cv2.transform(cv2.multiply(vectors, vectors), np.ones((1, 2), np.float32)), np.float32)


def _steps(flow: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.int16] | None:
    """``flow`` (h, w, 2) in whole px of images of ``size`` (H, W); None if nothing moves as far as that."""
    steps = np.asarray(_scaled(flow, flow, size, cv2.CV_16S), np.int16)
    return steps if steps.any() else None


def _coarse(flow: NDArray[np.float32], match: Tensor) -> NDArray[np.float32]:
    """``flow`` (h, w, 2) in cells of features ``match`` (1, C, h8, w8): (h8, w8, 2)."""
    rows, columns = match.shape[-2:]
    small = cv2.resize(flow, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(_scaled(small, flow, (rows, columns), cv2.CV_32F), np.float32)


def _scaled(vectors: Any, flow: NDArray[np.float32], size: tuple[int, int], depth: int) -> Any:
    """``vectors`` (·, ·, 2) in px of ``flow`` (h, w, 2) → in px of a picture of ``size`` (height, width)."""
    ratio: Any = (size[1] / flow.shape[1], size[0] / flow.shape[0], 0, 0)
    return cv2.multiply(vectors, ratio, dtype=depth)


def _chained(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    there = cv2.add(first, _positions(*first.shape[:2]))
    return np.asarray(cv2.add(first, _at(second, there)), np.float32)


def _at(flow: NDArray[np.float32], there: Any) -> Any:
    """``flow`` (h, w, 2) at places (h, w, 2); beyond its edges that of the edge."""
    return cv2.remap(flow, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


@cache
def _positions(height: int, width: int) -> NDArray[np.float32]:
    """(H, W, 2) x and y of each pixel."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return np.stack(np.meshgrid(x, y), axis=-1)
