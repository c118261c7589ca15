"""Votes of the masks before and after a frame on its labels (ours, not the paper's).

model/evidence.py combines the logits of frames, K maps of them. Masks of other programs have no logits, and any number
of classes. So every pixel holds one label and its lead, the weight that it has more than all others
together (Boyer and Moore's majority vote, with weights that fade). A pass through the masks, in either direction, takes
them along:

    lead ← carry · e · lead moved to where things are now,   then lead ± own weight           (`Votes`)

and a pixel changes its label only if another one leads on both sides together (`decide`). Where there are two labels,
this is a full count of both. Everything is in 8 bits, so that a pass takes about a millisecond at 480p.

Shapes: H W masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.media.masks import Mask

Weights: TypeAlias = NDArray[np.uint8]  # (H, W)

ONE = 12
"""Weight of one mask that is sure: the lead of a label that never changes, ONE / (1 − CARRY), fits into 8 bits. Leads
of rare labels end at 255."""

CARRY = 0.92
"""Share of its lead that a label keeps from frame to frame, where it is sure to be of the same thing."""

_STRIP_PX = 1 << 16


class Transfer(NamedTuple):
    """What a frame takes over from the one before it, or after it."""

    steps: NDArray[np.int16] | None
    """(h, w, 2) x and y from here to there, in px of the masks; None: nothing moved."""
    carry: Weights  # (h, w) CARRY times the trust in what comes from there, as a share of 255


class Votes(NamedTuple):
    """The label of every pixel that leads, and by how much."""

    label: Mask
    lead: Weights
    masks: int = 0  # number of masks that have voted

    def carried(self, transfer: Transfer) -> Votes:
        """The votes as the next frame takes them over; beyond the edges lies the edge."""
        height, width = self.label.shape
        carry = _array(cv2.resize(transfer.carry, (width, height)))
        if transfer.steps is None:
            return self._replace(lead=_array(cv2.multiply(self.lead, carry, scale=1 / 255)))
        # Label and lead move together, as one number.
        both = np.left_shift(self.label, 8, dtype=np.uint16 if self.label.dtype == np.uint8 else np.int32)
        both |= self.lead
        label, lead = np.empty_like(self.label), np.empty_like(self.lead)
        for top, bottom, steps in _strips(transfer.steps, height, width):
            far = cv2.resize(steps, (width, bottom - top), interpolation=cv2.INTER_NEAREST)
            how = cv2.INTER_NEAREST | cv2.WARP_RELATIVE_MAP
            moved: Any = cv2.remap(both, far, None, how, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
            np.right_shift(moved, 8, out=label[top:bottom], casting="unsafe")
            cv2.multiply(moved.astype(np.uint8), carry[top:bottom], dst=lead[top:bottom], scale=1 / 255)
        return Votes(label, lead, self.masks)

    def joined(self, mask: Mask, weight: Weights) -> Votes:
        """The votes with those of the frame's own ``mask``, whose label leads if it has more weight than the lead."""
        label, lead, masks = self
        more, less = cv2.add(lead, weight), cv2.absdiff(lead, weight)
        return Votes(
            _array(cv2.copyTo(mask, cv2.compare(weight, lead, cv2.CMP_GT), label.copy())),
            _array(cv2.copyTo(more, cv2.compare(mask, label, cv2.CMP_EQ), less)),
            masks + 1,
        )


def no_votes(mask: Mask) -> Votes:
    """No votes yet, of the size of ``mask``."""
    return Votes(mask, np.zeros(mask.shape, np.uint8))


def decide(mask: Mask, weight: Weights, before: Votes, after: Votes, void: int | None = None) -> Mask:
    """The ``mask`` with the label that has most weight where that is not its own; a tie leaves what is. Pixels that are
    ``void`` stay as they are."""
    sides = before, after
    against = [cv2.bitwise_and(side.lead, cv2.compare(side.label, mask, cv2.CMP_NE)) for side in sides]
    agreed = [cv2.subtract(side.lead, part) for side, part in zip(sides, against, strict=True)]
    together = cv2.bitwise_and(against[1], cv2.compare(before.label, after.label, cv2.CMP_EQ))
    # By how much each side's label has more weight than the own one has on the other side. That this ends at 0 and 255
    # changes nothing, since weights are far from both.
    first, other = cv2.add(cv2.subtract(against[0], agreed[1]), together), cv2.subtract(against[1], agreed[0])
    wins = _array(cv2.compare(cv2.max(first, other), weight, cv2.CMP_GT))
    if void is not None:
        wins = _array(cv2.bitwise_and(wins, (mask != void).view(np.uint8)))
    if not wins.any():
        return mask
    steadied = cv2.copyTo(before.label, wins, mask.copy())
    return _array(cv2.copyTo(after.label, cv2.bitwise_and(wins, cv2.compare(other, first, cv2.CMP_GT)), steadied))


def _strips(steps: NDArray[np.int16], height: int, width: int) -> Iterator[tuple[int, int, NDArray[np.int16]]]:
    """Rows of masks (H, W), from the first to before the last, with their part of ``steps`` (h, w, 2) from that row on.
    Maps of all rows would not fit into a processor's cache."""
    rows = len(steps)
    at_once = max(1, rows * _STRIP_PX // (height * width))
    for first in range(0, rows, at_once):
        part = steps[first : first + at_once]
        top, bottom = (-(-row * height // rows) for row in (first, first + len(part)))
        if bottom > top:
            yield top, bottom, part + np.array([0, top], np.int16)


def _array(found: Any) -> NDArray[Any]:
    return np.asarray(found)
