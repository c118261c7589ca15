"""Two-sided evidence (ours, not the paper's): combine what frames before and after say about a frame.

A video file has a future, too. Every keyframe says something (logits) about every position, with a weight that measures
how sure it is. It is combined with the keyframes before and after it as a non-keyframe is with its keyframe (eq. 7),
but as a weighted mean, so that what many frames agree on outweighs what one says:

    P = carry · e(w) ⊙ n_o,   y' = (n ⊙ y + P ⊙ y_o) / (n + P),   n' = n + P                       (`lean`)

y and n are the logits and weight of one frame, y_o and n_o those of the other, moved along (model/alignment.py). e(w)
is the model's evidence curve: how much more often than by chance two positions of similarity w (eq. 6) have the same
label. A keyframe that is unsure about a position therefore does not impose it, and nothing is taken from another scene.

A frame between two keyframes is combined from both (`mix`). It is computed itself only where it resembles neither, as
eq. 11 applies sparse attention there, but by the whole network at half the size: this is cheaper than the low stages
alone at full size, and does not mix features of different times. All comparisons with such frames are made at half the
size, too: one costs at most a quarter of a keyframe.

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
"""Share of its weight that a keyframe's opinion keeps on its way to the next keyframe."""

CHANGED = 0.7
"""Similarity below which a position counts as changed."""

SAME_SCENE = 0.4
"""Two frames show different scenes if the share of unchanged positions is below this. With tfc-lite0 and best matches,
3 to 21 % of the positions are unchanged between different clips, and 54 to 100 % between frames of one clip, eight
apart."""

ENOUGH = 0.1
"""With at least this evidence, a frame between keyframes isn't computed itself. Below, its own share rises, up to all
of it at 0."""

ASKED = 0.02
"""The frame is computed only if at least this share of its positions needs it: fewer are not worth the time."""

FINER = 0.5
"""Weight of level 1 beside level 2 in what is compared at half the size: level 2 alone misses small things there."""

NEARNESS = 0.5
"""The weights of the two keyframes are multiplied by this power of nearness in time: labels change over gradually, and
not in the frame where the nearer keyframe changes."""

UNSURE = 1e-3
"""Minimum weight of a position: zero weights have no mean."""

LEAST = 1e-6
"""Weight of a keyframe of the same scene where it has no evidence."""


class Glimpse(NamedTuple):
    """Low-level features of T frames at half the size."""

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
    """(1, 1, h, w): how many sure keyframes have said so."""
    match: Tensor
    """(1, C, h8, w8) of the frame, normalised."""


class TwoOpinions(NamedTuple):
    """What all keyframes say of the last one, and what some of the latest do; shapes as in `Opinion`."""

    logits: Tensor
    weight: Tensor
    match: Tensor
    latest_logits: Tensor
    latest_weight: Tensor

    @classmethod
    def of(cls, everything: Opinion, latest: Opinion) -> TwoOpinions:
        """Both are of one keyframe."""
        return cls(*everything, latest.logits, latest.weight)

    def split(self) -> tuple[Opinion, Opinion]:
        """What all say, and what the latest say."""
        return Opinion(*self[:3]), Opinion(self.latest_logits, self.latest_weight, self.match)


HandedOn: TypeAlias = Carried | Opinion | TwoOpinions
"""Carry-over from an interval's keyframes to the next one, on one side or both."""


class Likeness(NamedTuple):
    """Similarity of T frames to another one."""

    rows: Tensor | None
    """(T·h·w,) where each position lies among the h·w of the other frame; None: nothing moved."""
    similarity: Tensor
    """w of eq. 6 (T, 1, h, w)."""
    evidence: Tensor
    """e(w) (T, 1, h, w), 0 in another scene."""


def sureness(logits: Tensor) -> Tensor:
    """(T, 1, h, w): by how much the most probable class leads the second one."""
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
    """Compare frames with ``match`` (T, C, h8, w8) to one with ``other`` (1, C, h8, w8), on a grid of ``size``.

    Both inputs normalised.
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
    """Combine what both say about the first frame; ``like`` is its similarity to the other one.

    A lerp keeps equal logits bit-identical, whatever the weights.
    """
    added = carry * like.evidence * move(other.weight, like.rows, 1)
    weight = opinion.weight + added
    logits = torch.lerp(opinion.logits, move(other.logits, like.rows, 1), added / weight)
    return Opinion(logits, weight, opinion.match)


class Side(NamedTuple):
    """A keyframe, and the similarity of the T frames on one side of it."""

    opinion: Opinion
    like: Likeness
    nearness: Tensor
    """(T,) in 0…1: 1 at the keyframe, 0 at the one on their other side."""

    def weights(self) -> Tensor:
        """(T, 1, h, w): weight of its opinion at each position."""
        weight = self.like.evidence * move(self.opinion.weight, self.like.rows, len(self.nearness))
        weight = weight * self.nearness.pow(NEARNESS).view(-1, 1, 1, 1).to(weight.dtype)
        # Where neither keyframe has evidence, one of another scene must not be taken.
        return weight + LEAST * (self.like.evidence.amax(dim=(2, 3), keepdim=True) > 0).to(weight.dtype)


class Mixture(NamedTuple):
    """How the opinions of two keyframes combine in T frames between them; logits are computed where needed."""

    sides: Sequence[Side]
    """One after the last keyframe."""
    second: Tensor
    """(T, 1, h, w): share of the second side."""
    similarity: Tensor
    """(T, h, w): w of eq. 6 to the keyframe that a position resembles more."""
    own: Tensor
    """(T, 1, h, w): share of the frame itself."""
    own_fraction: Tensor
    """(T,) float32: share of positions where the frame itself is computed, 0 if there are few of them."""

    def added_up(self, row: int, values: Sequence[Tensor], where: Tensor | None = None) -> Tensor:
        """Mean (N, ·) of the sides' ``values`` (h·w, ·) at positions of frame ``row``: all, or those given (N,)."""
        found = self.taken(row, values, where)
        if len(found) == 1:
            return found[0]
        share = self.second[row].view(-1, 1)
        # A lerp leaves equal values bit for bit what they are, whatever the share.
        return torch.lerp(found[0], found[1], share if where is None else share[where])

    def taken(self, row: int, values: Sequence[Tensor], where: Tensor | None = None) -> list[Tensor]:
        """The ``values`` (h·w, ·) of each side at the matches of the positions of frame ``row``."""
        count, found = self.second[row].numel(), []
        for side, value in zip(self.sides, values, strict=True):
            rows = where
            if side.like.rows is not None:
                rows = side.like.rows[row * count : (row + 1) * count]
                rows = rows if where is None else rows.index_select(0, where)
            found.append(value if rows is None else value.index_select(0, rows))
        return found


def mix(sides: Sequence[Side]) -> Mixture:
    """Combine the sides of frames between two keyframes, or after the last one."""
    weights = [side.weights() for side in sides]
    best = sides[0].like
    second = torch.zeros_like(weights[0])
    if len(sides) > 1:
        second = weights[1] / (weights[0] + weights[1]).clamp_min(LEAST)
        best = Likeness(None, *(torch.maximum(*pair) for pair in zip(best[1:], sides[1].like[1:], strict=True)))
    own = 1 - (best.evidence / ENOUGH).clamp_max(1)
    wanted = (own > 0).float().mean(dim=(1, 2, 3))
    return Mixture(sides, second, best.similarity[:, 0], own, wanted * (wanted >= ASKED))
