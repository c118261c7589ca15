"""Votes of labels: what the masks before and after a frame say about it (ours, not the paper's).

`model/evidence.py` joins what frames say as logits, K maps of them. Masks of other programs have no logits, and labels
of any number of classes. So every pixel holds one label and its lead, the weight that it has more than all others
together (Boyer and Moore's majority vote, with weights that fade). A pass through the masks, in either direction, takes
them along:

    lead ← carry · e · lead moved to where things are now,   then lead ± own weight           (`Votes`)

and a pixel changes its label only if another one leads on both sides together (`decide`). Where there are two labels,
this is a full count of both. Everything is in 8 bits, so that a pass takes about a millisecond at 480p.

Shapes: H W masks.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.media.mask_form import Mask

Weights: TypeAlias = NDArray[np.uint8]
"""(H, W)."""

ONE = 12
"""Weight of one mask that is sure: the lead of a label that never changes, ONE / (1 − CARRY), fits into 8 bits. Leads
of rare labels end at 255."""

CARRY = 0.92
"""Share of its lead that a label keeps from frame to frame, where it is sure to be of the same thing."""


class Pull(NamedTuple):
    """What a frame takes over from the one before it, or after it."""

    steps: NDArray[np.int16] | None
    """(h, w, 2) x and y from here to there, in px of the masks; None: nothing moved."""
    carry: Weights
    """(h, w) CARRY times the trust in what comes from there, as a share of 255."""


class Votes(NamedTuple):
    """The label of every pixel that leads, and by how much."""

    label: Mask
    lead: Weights

    def carried(self, pull: Pull) -> Votes:
        """The votes as the next frame takes them over."""
        height, width = self.label.shape
        label, lead = self if pull.steps is None else self._moved(pull.steps)
        carry = cv2.resize(pull.carry, (width, height))
        return Votes(label, _array(cv2.multiply(lead, carry, scale=1 / 255)))

    def _moved(self, steps: NDArray[np.int16]) -> Votes:
        """The votes of where ``steps`` (h, w, 2) lead to; beyond the edges lies the edge."""
        height, width = self.label.shape
        far = cv2.resize(steps, (width, height), interpolation=cv2.INTER_NEAREST)
        # Label and lead move together, as one number.
        both = np.left_shift(self.label, 8, dtype=np.uint16 if self.label.dtype == np.uint8 else np.int32)
        both |= self.lead
        how = cv2.INTER_NEAREST | cv2.WARP_RELATIVE_MAP
        moved: Any = cv2.remap(both, far, None, how, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        label = np.right_shift(moved, 8, out=np.empty_like(self.label), casting="unsafe")
        return Votes(label, moved.astype(np.uint8))

    def joined(self, mask: Mask, weight: Weights) -> Votes:
        """The votes with those of the frame's own ``mask``, whose label leads if it has more weight than the lead."""
        label, lead = self
        more, less = cv2.add(lead, weight), cv2.absdiff(lead, weight)
        return Votes(
            _array(cv2.copyTo(mask, cv2.compare(weight, lead, cv2.CMP_GT), label.copy())),
            _array(cv2.copyTo(more, cv2.compare(mask, label, cv2.CMP_EQ), less)),
        )


def no_votes(mask: Mask) -> Votes:
    """No votes yet, of the size of ``mask``."""
    return Votes(mask, np.zeros(mask.shape, np.uint8))


def decide(mask: Mask, weight: Weights, before: Votes, after: Votes, void: int | None = None) -> Mask:
    """The ``mask`` with the label that has most weight where that is not its own; a tie leaves what is.

    Pixels that are ``void`` stay as they are.
    """
    sides = before, after
    against = [cv2.bitwise_and(lead, cv2.compare(label, mask, cv2.CMP_NE)) for label, lead in sides]
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


def _array(found: Any) -> NDArray[Any]:
    return np.asarray(found)
