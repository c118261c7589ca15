"""Two-sided evidence (ours, not the paper's): what frames before and after say about a frame, and how much it counts.

A video that lies on disk has a future. Every keyframe says something about every position, with a weight: how sure it
is of it. It leans on the keyframes before it and after it as a non-keyframe leans on its keyframe (eq. 7), but as a
weighted mean, so that what many frames agree on outweighs what one says:

    P = carry · e(w) ⊙ n_o,   y' = (n ⊙ y + P ⊙ y_o) / (n + P),   n' = n + P                       (`lean`)

with y and n the logits and weight of the one, y_o and n_o those of the other, moved along (model/alignment.py). e(w) is
the model's evidence curve: how much rather than by chance two positions of similarity w (eq. 6) have one label. So
a keyframe that is unsure of a position does not impose it, and nothing is taken over from another scene.

A frame between two keyframes leans on both (`between`), and on nothing else where it resembles one of them enough. What
a frame says itself is asked only where it resembles neither, as eq. 11 asks sparse attention, but from the whole
network at half the size: cheaper than the low stages alone at full size, and not mixed with features of another moment.
All comparisons with such frames are made at half the size, too: one costs a quarter of a keyframe at most.

Shapes: T frames, K classes, C channels, h w grid of the logits, h8 w8 grid of what is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from tfcseg.model.alignment import find_matches, move
from tfcseg.model.carry_over import Carried
from tfcseg.model.decode_head import resize

CARRY = 0.95
"""Share of its weight that what a keyframe says keeps on its way to the next one."""

CHANGED = 0.7
"""Similarity below which a position counts as changed."""

SAME_SCENE = 0.4
"""Share of unchanged positions below which two frames show different scenes. With tfc-lite0 and best matches, 3 to 21 %
of the positions are unchanged between different clips, and 54 to 100 % between frames of one, eight apart."""

ENOUGH = 0.1
"""Evidence from which on a frame between keyframes isn't asked itself. Below, its share rises to all at none."""

ASKED = 0.02
"""Share of such positions from which on it is asked: fewer are not worth a quarter of a keyframe."""

FINER = 0.5
"""Weight of level 1 beside level 2 in what is compared at half the size: level 2 alone misses small things there."""

NEARNESS = 0.5
"""Weights of the two keyframes go with this power of the nearness in time: labels change over between them, bit by bit,
and not in the frame where the nearer keyframe becomes the other one."""

UNSURE = 1e-3
"""Least weight of a position: zero weights have no mean."""


class Glimpse(NamedTuple):
    """What the low stages see of T frames at half the size."""

    x1: Tensor
    x2: Tensor
    match: Tensor
    """Level 2 as `Keyframe.match`, normalised (T, C, h8, w8): what is compared."""

    def finer(self) -> Glimpse:
        """The same with what is compared at the size of level 1, and from both levels."""
        size = (self.x1.shape[-2], self.x1.shape[-1])
        parts = [resize(self.match, size), FINER * F.normalize(self.x1, dim=1)]
        return self._replace(match=F.normalize(torch.cat(parts, dim=1), dim=1))


class Opinion(NamedTuple):
    """What is said about a frame's positions (one row each)."""

    logits: Tensor
    """(1, K, h, w)."""
    weight: Tensor
    """(1, 1, h, w) how many sure keyframes have said so."""
    match: Tensor
    """(1, C, h8, w8) of the frame, normalised."""


HandedOn: TypeAlias = Carried | Opinion
"""What the keyframe after an interval takes over from those before it, on one side or on both."""


class Likeness(NamedTuple):
    """How T frames resemble another one."""

    rows: Tensor | None
    """(T·h·w,) where each position lies among the h·w of the other; None: nothing moved."""
    similarity: Tensor
    """w of eq. 6 (T, 1, h, w)."""
    evidence: Tensor
    """e(w) (T, 1, h, w), 0 in another scene."""


def sureness(logits: Tensor) -> Tensor:
    """(T, 1, h, w): by how much the first class is more probable than the second."""
    shares = logits.permute(0, 2, 3, 1).float().softmax(dim=-1)
    first, place = shares.max(dim=-1, keepdim=True)
    second = shares.scatter_(-1, place, 0).amax(dim=-1, keepdim=True)
    return (first - second).clamp_min_(UNSURE).to(logits.dtype).permute(0, 3, 1, 2)


def evidence(w: Tensor, curve: Sequence[float]) -> Tensor:
    """e(w), interpolated between the values of ``curve`` at equal steps from w = 0 to 1; 0 in another scene."""
    knots = w.new_tensor(curve)
    position = w.clamp(0, 1) * (len(curve) - 1)
    before = position.floor().clamp_max(len(curve) - 2)
    e = torch.lerp(knots[before.long()], knots[before.long() + 1], position - before)
    return e * (changed_share(w).view(-1, 1, 1, 1) <= 1 - SAME_SCENE)


def changed_share(w: Tensor) -> Tensor:
    """(T,) share of positions of w (T, 1, h, w) that count as changed."""
    return (w < CHANGED).float().mean(dim=(1, 2, 3))


def compare(other: Tensor, match: Tensor, size: tuple[int, int], curve: Sequence[float]) -> Likeness:
    """How frames with ``match`` (T, C, h8, w8) resemble one with ``other`` (1, C, h8, w8), on a grid of ``size``.

    Both normalised.
    """
    found = find_matches(other, match)
    w = resize(found.cosine, size)
    moved = found.cells.any()
    rows = _rows(resize(found.cells, size), (2 * match.shape[-2], 2 * match.shape[-1])) if moved else None
    return Likeness(rows, w, evidence(w, curve))


def _rows(cells: Tensor, fine: tuple[int, int]) -> Tensor:
    """Rows among h·w positions from displacements (T, 2, h, w) in cells of a grid of size ``fine``."""
    h, w = cells.shape[-2:]
    scale = cells.new_tensor([h / fine[0], w / fine[1]]).view(2, 1, 1)
    y, x = (cells * scale).round().long().unbind(1)
    y = (torch.arange(h, device=cells.device)[:, None] + y).clamp_(0, h - 1)
    x = (torch.arange(w, device=cells.device) + x).clamp_(0, w - 1)
    return (y * w + x).flatten()


def lean(opinion: Opinion, other: Opinion, like: Likeness, carry: float = CARRY) -> Opinion:
    """What both say of the frame of the first, which resembles that of the other as ``like`` says.

    A lerp leaves equal logits bit for bit what they are, whatever the weights.
    """
    added = carry * like.evidence * move(other.weight, like.rows, 1)
    weight = opinion.weight + added
    logits = torch.lerp(opinion.logits, move(other.logits, like.rows, 1), added / weight)
    return Opinion(logits, weight, opinion.match)


class Side(NamedTuple):
    """A keyframe, and how the T frames on one side of it resemble it."""

    opinion: Opinion
    like: Likeness
    nearness: Tensor
    """(T,) in 0…1: 1 at the keyframe, 0 at the one on their other side."""

    def weights(self) -> Tensor:
        """(T, 1, h, w): how much its opinion counts at each position."""
        weight = self.like.evidence * move(self.opinion.weight, self.like.rows, len(self.nearness))
        return weight * self.nearness.pow(NEARNESS).view(-1, 1, 1, 1).to(weight.dtype)


class Mixture(NamedTuple):
    """What two keyframes say of the positions of T frames between them, not yet added up."""

    sides: Sequence[Side]
    """One after the last keyframe."""
    second: Tensor
    """(T, 1, h, w): share of the second side."""
    similarity: Tensor
    """(T, h, w): w of eq. 6 to the keyframe that a position resembles more."""
    own: Tensor
    """(T, 1, h, w): share of the frame itself."""
    own_fraction: Tensor
    """(T,) float32: share of positions where the frame itself is asked, 0 if there are few of them."""

    def added_up(self, row: int, values: Sequence[Tensor], where: Tensor | None = None) -> Tensor:
        """Mean (N, ·) of the sides' ``values`` (h·w, ·) at positions of frame ``row``: all, or those given (N,)."""
        found = self.taken(row, values, where)
        if len(found) == 1:
            return found[0]
        share = self.second[row].view(-1, 1)
        # A lerp leaves equal values bit for bit what they are, whatever the share.
        return torch.lerp(found[0], found[1], share if where is None else share[where])

    def taken(self, row: int, values: Sequence[Tensor], where: Tensor | None = None) -> list[Tensor]:
        """What each side says: its ``values`` (h·w, ·) at the places that the positions of frame ``row`` have there."""
        count, found = self.second[row].numel(), []
        for side, value in zip(self.sides, values, strict=True):
            rows = where
            if side.like.rows is not None:
                rows = side.like.rows[row * count : (row + 1) * count]
                rows = rows if where is None else rows.index_select(0, where)
            found.append(value if rows is None else value.index_select(0, rows))
        return found


def mix(sides: Sequence[Side]) -> Mixture:
    """How much each side says of frames between two keyframes, or after the last one."""
    weights = [side.weights() for side in sides]
    best = sides[0].like
    second = torch.zeros_like(weights[0])
    if len(sides) > 1:
        # Where neither says anything, it does not matter what is taken.
        second = weights[1] / (weights[0] + weights[1]).clamp_min(UNSURE)
        best = Likeness(None, *(torch.maximum(*pair) for pair in zip(best[1:], sides[1].like[1:], strict=True)))
    own = 1 - (best.evidence / ENOUGH).clamp_max(1)
    wanted = (own > 0).float().mean(dim=(1, 2, 3))
    return Mixture(sides, second, best.similarity[:, 0], own, wanted * (wanted >= ASKED))
