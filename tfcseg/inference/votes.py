"""Votes of labels: what the masks before and after a frame say about it (ours, not the paper's).

`model/evidence.py` joins what frames say as logits, K maps of them. Masks of other programs have no logits, and labels
of any number of classes. So every pixel holds two candidates with their weights, which is where nearly all flicker is
between. A pass through the masks, in either direction, takes them along:

    w(l) ← carry · e · w(l) moved to where things are now,   then w(own label) += own weight              (`Votes`)

and a pixel changes its label only if another one has more weight on both sides together (`decide`). Weights are fixed
point numbers of 16 bits: a third of the time that floats take.

Shapes: H W masks.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.media.mask_form import Mask

Weights: TypeAlias = NDArray[np.uint16]
"""(H, W)."""

ONE = 512
"""Weight of one mask that is sure."""

CARRY = 0.9
"""Share of its weight that a vote keeps from frame to frame, where it is sure to be of the same thing."""


class Tie(NamedTuple):
    """How a frame hangs together with the one before it (or after it)."""

    places: NDArray[np.int16] | None
    """(H, W, 2) x and y in the other frame of what is here; None: nothing moved."""
    carry: Weights
    """CARRY · e as a share of 65535."""


class Votes(NamedTuple):
    """Two candidates for every pixel, the first with the greater weight."""

    first: Mask
    first_weight: Weights
    second: Mask
    second_weight: Weights

    def carried(self, tie: Tie) -> Votes:
        """The votes as the next frame takes them over."""
        votes = self if tie.places is None else Votes(*(_move(part, tie.places) for part in self))
        return votes._replace(
            first_weight=_scale(votes.first_weight, tie.carry), second_weight=_scale(votes.second_weight, tie.carry)
        )

    def joined(self, mask: Mask, weight: Weights) -> Votes:
        """The votes with those of the frame's own ``mask``; a new label replaces the second if it has more."""
        first, first_weight, second, second_weight = self
        is_first = mask == first
        is_second = (mask == second) & ~is_first
        first_weight = first_weight + weight * is_first
        second_weight = second_weight + weight * is_second
        is_new = ~(is_first | is_second) & (weight > second_weight)
        second, second_weight = _put(mask, is_new, second), _put(weight, is_new, second_weight)
        is_greater = second_weight > first_weight
        if not is_greater.any():
            return Votes(first, first_weight, second, second_weight)
        return Votes(
            _put(second, is_greater, first),
            _put(second_weight, is_greater, first_weight),
            _put(first, is_greater, second),
            _put(first_weight, is_greater, second_weight),
        )


def no_votes(mask: Mask) -> Votes:
    """Votes of nobody, of the size of ``mask``."""
    nothing = np.zeros(mask.shape, np.uint16)
    return Votes(mask, nothing, mask, nothing)


def decide(mask: Mask, weight: Weights, before: Votes, after: Votes) -> Mask:
    """The ``mask`` with the label that has most weight where that is not its own; a tie leaves what is.

    Where both sides have the mask's own label first, no other can win: these pixels are not looked at.
    """
    is_contested = [(votes.first != mask) & (votes.first_weight > 0) for votes in (before, after)]
    open_to = np.flatnonzero(is_contested[0] | is_contested[1])
    if not len(open_to):
        return mask
    own = mask.reshape(-1)[open_to]
    sides = [[part.reshape(-1)[open_to] for part in votes] for votes in (before, after)]
    candidates: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (side[at], side[at + 1].astype(np.uint32)) for side in sides for at in (0, 2)
    ]
    best, most = own, weight.reshape(-1)[open_to].astype(np.uint32)
    for label, count in candidates:
        most = most + count * (label == own)
    for at, (label, count) in enumerate(candidates):
        total = count.copy()
        for other, more in candidates[2:] if at < 2 else candidates[:2]:
            total += more * (other == label)
        is_better = (label != own) & (total > most)
        best, most = np.where(is_better, label, best), np.where(is_better, total, most)
    steadied = mask.copy()
    steadied.reshape(-1)[open_to] = best
    return steadied


def _move(part: NDArray[Any], places: NDArray[np.int16]) -> NDArray[Any]:
    return cv2.remap(part, places, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload,no-any-return]


def _scale(weight: Weights, share: Weights) -> Weights:
    return cv2.multiply(weight, share, scale=1 / 65535)  # type: ignore[return-value]


def _put(values: NDArray[Any], where: NDArray[np.bool_], into: NDArray[Any]) -> NDArray[Any]:
    """``into`` with ``values`` at some places."""
    return cv2.copyTo(values, where.view(np.uint8), into.copy())
