"""How consecutive frames relate: where things moved, and whether they are still the same things.

Optical flow (OpenCV DIS) in both directions follows motion: it places edges more finely than features at stride 8 can.
The low-level features of a network, correlated along the flow (eq. 6), and its evidence curve (model/evidence.py) tell
how far to trust it. Positions that the flow does not find again on its way back are hidden, and take nothing over.

Letters: h w grid of the flow, H W image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.votes import CARRY, Tie, Weights
from tfcseg.media.frames import Image
from tfcseg.media.mask_form import Mask
from tfcseg.model.correlation import similarity
from tfcseg.model.evidence import evidence

SIZE, FEATURE_SIZE = 80, 96
"""Short side in px at which the flow follows frames, and at which a network sees them."""

SAME_SCENE = 0.75
"""Share of positions that are found again to within a pixel, below which frames are not linked. From one frame to the
next it is 0.85 to 1, also from a driving car; 0.2 to 0.7 half a second later, and 0 to 0.1 across cuts."""

_LENGTH_SHARE, _GAP = 0.01, 0.5
"""Squared distance in px by which flow there and back may miss: this share of the squared lengths, plus a constant."""

_HIDDEN = 4
"""A position counts as hidden from this many times that distance on: what is nearly found again is the same thing."""


class Seen(NamedTuple):
    """What is compared of a frame."""

    gray: NDArray[np.uint8]
    """(h, w)."""
    match: Tensor
    """(1, C, h8, w8) low-level features."""


class Pull(NamedTuple):
    """What a frame takes over from the one before it, or after it."""

    flow: NDArray[np.float32]
    """(h, w, 2) x and y from here to there, in px of this grid."""
    carry: Weights
    """(h, w) CARRY times the trust in what comes from there, as a share of 255."""

    def tie(self, size: tuple[int, int]) -> Tie:
        """The same for masks of ``size`` (H, W)."""
        height, width = size
        carry = np.asarray(cv2.resize(self.carry, (width, height)), np.uint8)
        scale = np.array([width / self.flow.shape[1], height / self.flow.shape[0]], np.float32)
        steps = np.rint(self.flow * scale).astype(np.int16)
        if not steps.any():
            return Tie(None, carry)
        far = cv2.resize(steps, (width, height), interpolation=cv2.INTER_NEAREST)
        return Tie(np.asarray(cv2.add(far, _places(height, width)), np.int16), carry)


class Link(NamedTuple):
    """Between a frame and the one before it."""

    back: Pull
    """What the frame takes over from the one before it."""
    forth: Pull
    """What the one before it takes over from the frame."""
    similarity: float
    """Mean of w of eq. 6 along the flow."""


class Linker:
    """Compares frames of one video; one thread at a time."""

    def __init__(self, network: IntervalNetwork) -> None:
        self._network = network
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(1)

    @torch.inference_mode()
    def look(self, images: Sequence[Image]) -> list[Seen]:
        """What is compared of (H, W, 3) RGB images of one size: of several at once in half the time."""
        images = [_halved(image) for image in images]
        height, width = images[0].shape[:2]
        scale = min(1.0, SIZE / min(height, width))
        size_wh = (max(16, round(width * scale)), max(16, round(height * scale)))
        matches = self._network.network.low_features(self._network.to_input(images, FEATURE_SIZE)).match.float().cpu()
        grays = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images)
        small = (cv2.resize(gray, size_wh, interpolation=cv2.INTER_AREA) for gray in grays)
        return [Seen(np.asarray(gray, np.uint8), match[None]) for gray, match in zip(small, matches, strict=True)]

    def link(self, before: Seen, now: Seen) -> Link | None:
        """How a frame relates to the one before it; None if it does not, as across a cut."""
        if before.gray.shape != now.gray.shape:
            return None
        flows = self._between(now, before), self._between(before, now)
        missed = _missed(*flows), _missed(flows[1], flows[0])
        if min(np.count_nonzero(each <= 1) / each.size for each in missed) < SAME_SCENE:
            return None
        alike = _similarity(before, now, flows)
        carry = self._carry(alike, missed)
        return Link(Pull(flows[0], carry[0]), Pull(flows[1], carry[1]), float(alike[0].mean()))

    def _carry(self, alike: Tensor, missed: Sequence[NDArray[np.float32]]) -> list[Weights]:
        """(h, w) shares of a lead that are kept: by the root of the evidence, as leads are taken along many times."""
        trust = 255 * CARRY * evidence(alike, self._network.network.config.evidence).sqrt()
        height, width = missed[0].shape
        kept = [cv2.resize(each, (width, height)) for each in trust[:, 0].numpy()]
        return [np.rint(each * (far <= _HIDDEN)).astype(np.uint8) for each, far in zip(kept, missed, strict=True)]

    def _between(self, here: Seen, there: Seen) -> NDArray[np.float32]:
        """(h, w, 2) flow."""
        # An array of the frame's size would be taken as a first guess of the flow; any other size means there is none.
        return np.array(self._flow.calc(here.gray, there.gray, np.empty((1, 1, 2), np.float32)), np.float32)


def _halved(image: Image) -> Image:
    """The image, halved as long as it stays twice as large as what is made of it: faster than to its size at once."""
    while min(image.shape[:2]) >= 4 * FEATURE_SIZE:
        image = np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    return image


def contrast(seen: Seen, mask: Mask) -> float | None:
    """How many times more features differ across the edges of an (H, W) mask than inside; None without any edges."""
    rows, columns = seen.match.shape[-2:]
    small = cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_NEAREST_EXACT)
    match = F.normalize(seen.match[0], dim=0)
    across, down = 1 - (match[:, :, 1:] * match[:, :, :-1]).sum(dim=0), 1 - (match[:, 1:] * match[:, :-1]).sum(dim=0)
    change = torch.cat([across.flatten(), down.flatten()]).numpy()
    is_edge = np.concatenate([(small[:, 1:] != small[:, :-1]).ravel(), (small[1:] != small[:-1]).ravel()])
    if not 0 < is_edge.sum() < len(is_edge):
        return None
    return float(change[is_edge].mean() / max(1e-6, change[~is_edge].mean()))


def still(seen: Seen) -> Link:
    """The link to a frame that shows the same picture."""
    pull = Pull(np.zeros((*seen.gray.shape, 2), np.float32), np.full(seen.gray.shape, round(255 * CARRY), np.uint8))
    return Link(pull, pull, 1.0)


def _missed(flow: NDArray[np.float32], back: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) by how much going along ``flow`` and ``back`` misses the start, 1 being what rounding may do.

    The test of Sundaram et al., ECCV 2010.
    """
    height, width = flow.shape[:2]
    there = cv2.add(flow, _positions(height, width))
    returned = cv2.remap(back, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    gap = _squares(cv2.add(returned, flow))
    missed = gap / (_LENGTH_SHARE * (_squares(flow) + _squares(returned)) + _GAP)
    is_inside = cv2.inRange(there, (-0.5, -0.5), (width - 0.5, height - 0.5))
    return np.where(is_inside > 0, missed, np.float32(np.inf))


def _squares(vectors: Any) -> NDArray[np.float32]:
    """(h, w) squared lengths of (h, w, 2)."""
    return np.asarray(cv2.transform(cv2.multiply(vectors, vectors), np.ones((1, 2), np.float32)), np.float32)


@cache
def _positions(height: int, width: int) -> NDArray[np.float32]:
    """(H, W, 2) x and y of each pixel."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return np.stack(np.meshgrid(x, y), axis=-1)


@cache
def _places(height: int, width: int) -> NDArray[np.int16]:
    """The same in whole numbers."""
    return _positions(height, width).astype(np.int16)


def _similarity(before: Seen, now: Seen, flows: Sequence[NDArray[np.float32]]) -> Tensor:
    """(2, 1, h8, w8) similarity along the ``flows`` (h, w, 2): of ``now`` to ``before``, and the other way."""
    rows, columns = now.match.shape[-2:]
    grids = [cv2.resize(flow, (columns, rows), interpolation=cv2.INTER_AREA) for flow in flows]
    height, width = flows[0].shape[:2]
    # From px to -1 … 1, as `F.grid_sample` counts.
    places = (_positions(rows, columns) + 0.5) * np.array([2 / columns, 2 / rows], np.float32) - 1
    grid = torch.from_numpy(places + np.stack(grids) * np.array([2 / width, 2 / height], np.float32))
    moved = F.grid_sample(torch.cat([before.match, now.match]), grid, padding_mode="border", align_corners=False)
    return similarity(moved, torch.cat([now.match, before.match]))
