"""How consecutive frames hang together: where things moved, and whether what is there is still the same.

Motion is followed by optical flow (OpenCV DIS) in both directions: it places edges more finely than features at stride
8 can. Whether it may be trusted, the low-level features of a network say, correlated along it (eq. 6), and its evidence
curve (model/evidence.py). What flow forth and back does not find again is hidden, and takes nothing over.

Letters: h w grid of the flow, H W image.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.votes import CARRY, Tie
from tfcseg.media.frames import Image
from tfcseg.media.mask_form import Mask
from tfcseg.model.correlation import similarity
from tfcseg.model.evidence import evidence

SIZE, FEATURE_SIZE = 160, 128
"""Short side in px at which the flow follows frames, and at which a network sees them."""

SAME_SCENE = 0.7
"""Share of positions that are found again to within a pixel, below which frames are not linked. From one frame to the
next it is 0.83 to 1, also from a driving car; 0.2 to 0.6 half a second later, and 0 to 0.1 across cuts."""

_LEAST_MOTION_PX = 0.5
_LENGTH_SHARE, _GAP = 0.01, 0.5
"""Squared distance in px by which flow forth and back may miss: this share of the squared lengths, and so much."""

_HIDDEN = 4
"""Times that distance from which on a position counts as hidden: what is found nearly again is still the same thing."""


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
    trust: NDArray[np.float32]
    """(h, w) 0 to 1."""

    def tie(self, size: tuple[int, int]) -> Tie:
        """The same for masks of ``size`` (H, W)."""
        height, width = size
        carry = np.asarray(cv2.resize(self.trust * np.float32(CARRY * 65535), (width, height)))
        weights = carry.astype(np.uint16)
        flow = self.flow * np.array([width / self.flow.shape[1], height / self.flow.shape[0]], np.float32)
        if np.abs(flow).max() < _LEAST_MOTION_PX:
            return Tie(None, weights)
        places = cv2.add(cv2.resize(flow, (width, height)), _positions(height, width))
        fixed = cv2.convertMaps(places, None, cv2.CV_16SC2, nninterpolation=True)[0]  # type: ignore[call-overload]
        return Tie(np.asarray(fixed, np.int16), weights)


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
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    @torch.inference_mode()
    def look(self, image: Image) -> Seen:
        """What is compared of an (H, W, 3) RGB image."""
        scale = min(1.0, SIZE / min(image.shape[:2]))
        size_wh = (max(16, round(image.shape[1] * scale)), max(16, round(image.shape[0] * scale)))
        gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size_wh, interpolation=cv2.INTER_AREA)
        match = self._network.network.glimpse(self._network.to_input([image], FEATURE_SIZE)).match
        return Seen(np.asarray(gray, np.uint8), match.float().cpu())

    def link(self, before: Seen, now: Seen) -> Link | None:
        """How a frame hangs together with the one before it; None if it does not, as across a cut."""
        if before.gray.shape != now.gray.shape:
            return None
        flows = self._between(now, before), self._between(before, now)
        missed = _missed(*flows), _missed(flows[1], flows[0])
        if min((each <= 1).mean() for each in missed) < SAME_SCENE:
            return None
        alike = _similarity(before, now, flows[0]), _similarity(now, before, flows[1])
        back, forth = (Pull(flow, self._trust(w, found)) for flow, w, found in zip(flows, alike, missed, strict=True))
        return Link(back, forth, float(alike[0].mean()))

    def _trust(self, alike: Tensor, missed: NDArray[np.float32]) -> NDArray[np.float32]:
        """(h, w) trust in what comes from there: the root of the evidence, since it is taken along many times."""
        trust = evidence(alike, self._network.network.config.evidence).sqrt()[0, 0].numpy()
        height, width = missed.shape
        return np.asarray(cv2.resize(trust, (width, height)) * (missed <= _HIDDEN), np.float32)

    def _between(self, here: Seen, there: Seen) -> NDArray[np.float32]:
        """(h, w, 2) flow."""
        # An array of the frame's size would be taken as a first guess of the flow; any other size means there is none.
        return np.array(self._flow.calc(here.gray, there.gray, np.empty((1, 1, 2), np.float32)), np.float32)


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
    """How a frame hangs together with one that shows the same picture."""
    pull = Pull(np.zeros((*seen.gray.shape, 2), np.float32), np.ones(seen.gray.shape, np.float32))
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


def _similarity(there: Seen, here: Seen, flow: NDArray[np.float32]) -> Tensor:
    """(1, 1, h8, w8) similarity of the features here to those there, along the flow (h, w, 2) from here."""
    rows, columns = here.match.shape[-2:]
    height, width = flow.shape[:2]
    small = cv2.resize(flow, (columns, rows), interpolation=cv2.INTER_AREA)
    x = (2 * (np.arange(columns) + 0.5 + small[..., 0] * columns / width) / columns - 1).astype(np.float32)
    y = (2 * (np.arange(rows)[:, None] + 0.5 + small[..., 1] * rows / height) / rows - 1).astype(np.float32)
    grid = torch.from_numpy(np.stack([x, y], axis=-1))[None]
    moved = F.grid_sample(there.match, grid, padding_mode="border", align_corners=False)
    return similarity(moved, here.match)
