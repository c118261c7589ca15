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


class Tie(NamedTuple):
    """How a frame relates to the one before it (or after it)."""

    places: NDArray[np.int16] | None
    """(H, W, 2) x and y in the other frame of what is here; None: nothing moved."""
    carry: Weights
    """CARRY · e as a share of 255."""


class Votes(NamedTuple):
    """The label of every pixel that leads, and by how much."""

    label: Mask
    lead: Weights

    def carried(self, tie: Tie) -> Votes:
        """The votes as the next frame takes them over."""
        label, lead = self if tie.places is None else (_move(part, tie.places) for part in self)
        return Votes(label, _array(cv2.multiply(lead, tie.carry, scale=1 / 255)))

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
    # Only where the leads of other labels are more than the own weight can one of them win.
    against = [_array(cv2.bitwise_and(lead, cv2.compare(label, mask, cv2.CMP_NE))) for label, lead in (before, after)]
    is_open = _array(cv2.compare(cv2.add(against[0], against[1]), weight, cv2.CMP_GT))
    at = np.flatnonzero(is_open.view(np.bool_))
    own, ours, *sides = (part.reshape(-1)[at] for part in (mask, weight, *before, *after))
    first, other = sides[0::2]
    firsts, others = (lead.astype(np.uint16) for lead in sides[1::2])
    together = (firsts + others) * (first == other)
    ours = ours + firsts * (first == own) + others * (other == own)
    firsts, others = np.maximum(firsts, together) * (first != own), np.maximum(others, together) * (other != own)
    wins = np.maximum(firsts, others) > ours
    if void is not None:
        wins &= own != void
    if not wins.any():
        return mask
    steadied = mask.copy()
    steadied.reshape(-1)[at[wins]] = np.where(others > firsts, other, first)[wins]
    return steadied


def _move(part: NDArray[Any], places: NDArray[np.int16]) -> NDArray[Any]:
    return cv2.remap(part, places, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload,no-any-return]


def _array(found: Any) -> NDArray[Any]:
    return np.asarray(found)
