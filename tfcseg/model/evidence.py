"""Evidence (ours, not the paper's): combine a frame's logits with those of keyframes before it, and after it.

In a recorded video, later frames are known, too. Every keyframe has logits y and a weight n that measures how certain
they are. Keyframes are combined with those before and after them as a non-keyframe is with its keyframe (eq. 7), but
as a weighted mean, so that many keyframes outweigh one:

    P = e(w) ⊙ min(n_o, limit),   y' = (n ⊙ y + P ⊙ y_o) / (n + P),   n' = n + P                (`combine`)

y_o and n_o are those of the other keyframe, moved along with the scene (model/alignment.py). e(w) is the model's
evidence curve, fitted or chosen by hand: how much more often than by chance two positions of similarity w (eq. 6) have
the same label. So an uncertain keyframe has little influence, and nothing comes from another scene. The limit bounds
the weight of all earlier (or later) keyframes together, so that older ones fade.

A frame between two keyframes is a mean of both (`mix`). It is computed itself only where it resembles neither, as eq.
11 applies sparse attention there, but by the whole network at half the size: this is cheaper than the low stages alone
at full size, and does not mix features of different times. It is compared at half the size, too, and so costs at
most a quarter of an image. Keyframes are compared with each other at both sizes.

Shapes: T frames, K classes, C channels, h w grid of the logits, h8 w8 grid of what is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from tfcseg.model.alignment import find_matches, move, place_by_pixels, rows_at
from tfcseg.model.decode_head import resize, widened
from tfcseg.model.ops.labelling import greatest

MOST_WEIGHT = 2.0  # most weight that all keyframes on one side of a keyframe have; one that is certain by itself has 1
CHANGED = 0.7  # similarity below which a position counts as changed

SAME_SCENE = 0.4
"""Two frames show different scenes if the share of unchanged positions is below this. With tfc-lite0 and best matches,
3 to 21 % of the positions are unchanged between different clips, and 54 to 100 % between frames of one clip, eight
apart."""

ENOUGH_EVIDENCE = 0.1
"""With at least this evidence, a frame between keyframes isn't computed itself. Below, its own share rises, up to all
of it at 0."""

LEAST_COMPUTED_SHARE = 0.02
"""The frame is computed only if at least this share of its positions needs it: fewer are not worth the time."""

LEVEL1_WEIGHT = 0.5
"""Weight of level 1 beside level 2 in what is compared at half the size: level 2 alone misses small things there."""

HALVING_DIFFERENCE = 0.3  # difference of normalised colours (17 of 255 levels) that halves the evidence
LEAST_WEIGHT = 1e-3  # minimum weight of a position in a keyframe: a mean needs weights above zero
LEAST_SIDE_WEIGHT = 1e-6  # weight of a keyframe of the same scene at positions without evidence


class LowFeatures(NamedTuple):
    """Low-level features of T frames."""

    x1: Tensor
    x2: Tensor
    match: Tensor  # what is compared: level 2 as `Keyframe.match`, normalised (T, C, h8, w8)
    picture: Tensor  # the input (T, 3, H, W), or `at_size` of the logits, (T, 3, h, w)

    def at_size(self, size: tuple[int, int]) -> LowFeatures:
        """The same, with a ``picture`` of ``size`` (h, w)."""
        # One colour after the other: a CPU takes two thirds of the time.
        return self._replace(picture=F.adaptive_avg_pool2d(self.picture.contiguous(), size))

    def with_both_levels(self) -> LowFeatures:
        """The same, with a ``match`` of levels 1 and 2 at the size of level 1."""
        size = (self.x1.shape[-2], self.x1.shape[-1])
        parts = [resize(self.match, size), LEVEL1_WEIGHT * F.normalize(widened(self.x1), dim=1)]
        return self._replace(match=F.normalize(torch.cat(parts, dim=1), dim=1))


class WeightedLogits(NamedTuple):
    """Logits of one frame, and how certain they are."""

    logits: Tensor  # (1, K, h, w)
    weight: Tensor  # (1, 1, h, w): its margin, and what other keyframes added
    match: Tensor  # (1, C, h8, w8) features of the frame to compare, of both sizes
    picture: Tensor  # (1, 3, h, w), as in `LowFeatures`

    @classmethod
    def of(cls, logits: Tensor, full: LowFeatures, half: LowFeatures) -> WeightedLogits:
        """``logits`` of T keyframes, to be compared by features of the ``full`` size, which do not miss small moving
        things, and of ``half`` the size, which are steadier under motion blur."""
        resized = resize(half.match, (full.match.shape[-2], full.match.shape[-1]))
        match = F.normalize(torch.cat([full.match, resized], dim=1), dim=1)
        return cls(logits, margin(logits), match, half.picture)


class SectionEnd(NamedTuple):
    """Carry-over at the end of a section: of all keyframes, and of those since the end began; shapes as before."""

    logits: Tensor
    weight: Tensor
    match: Tensor
    picture: Tensor
    latest_logits: Tensor
    latest_weight: Tensor

    @classmethod
    def of(cls, everything: WeightedLogits, latest: WeightedLogits) -> SectionEnd:
        """Both are of the same keyframe."""
        return cls(*everything, latest.logits, latest.weight)

    def split(self) -> tuple[WeightedLogits, WeightedLogits]:
        """Those of all keyframes, and of those since the end began."""
        everything = WeightedLogits(*self[:4])
        return everything, everything._replace(logits=self.latest_logits, weight=self.latest_weight)


CarryOver: TypeAlias = WeightedLogits | SectionEnd  # carry-over from keyframes to later ones


class Correspondence(NamedTuple):
    """Where the positions of T frames lie in another frame, and how similar they are."""

    rows: Tensor | None  # (T·h·w,) row of each position's match among the h·w of the other frame; None: nothing moved
    similarity: Tensor  # w of eq. 6 (T, 1, h, w)
    evidence: Tensor  # e(w) (T, 1, h, w), 0 in another scene

    def placed_by_pixels(self, around: Tensor, pictures: Tensor) -> Correspondence:
        """The same, with better places, and less evidence where colours differ there; ``around`` are
        `alignment.surroundings` of the other frame."""
        rows, difference = place_by_pixels(self.rows, around, pictures)
        return self._replace(rows=rows, evidence=self.evidence / (1 + (difference / HALVING_DIFFERENCE) ** 2))


def margin(logits: Tensor) -> Tensor:
    """(T, 1, h, w): by how much the most probable class leads the second one."""
    shares = logits.permute(0, 2, 3, 1).float().softmax(dim=-1)
    place = greatest(shares)[..., None]
    first = shares.gather(-1, place)
    second = shares.scatter_(-1, place, 0).amax(dim=-1, keepdim=True)
    return (first - second).clamp_min_(LEAST_WEIGHT).to(logits.dtype).permute(0, 3, 1, 2)


def evidence(w: Tensor, curve: Sequence[float]) -> Tensor:
    """e(w), interpolated between the values of ``curve`` at equal steps from w = 0 to 1; 0 in another scene."""
    knots = w.new_tensor(curve)
    position = w.clamp(0, 1) * (len(curve) - 1)
    before = position.long().clamp_max_(len(curve) - 2)
    low, high = (values.index_select(0, before.flatten()).view_as(w) for values in (knots, knots[1:]))
    return torch.lerp(low, high, position - before) * (changed_share(w).view(-1, 1, 1, 1) <= 1 - SAME_SCENE)


def changed_share(w: Tensor) -> Tensor:
    """(T,) share of positions of w (T, 1, h, w) that count as changed."""
    return (w < CHANGED).float().mean(dim=(1, 2, 3))


def compare(other: Tensor, match: Tensor, size: tuple[int, int], curve: Sequence[float]) -> Correspondence:
    """Compare frames with ``match`` (T, C, h8, w8) to one with ``other`` (1, C, h8, w8), on a grid of ``size``.

    Both inputs normalised.
    """
    half_cells, cosine = find_matches(other, match)
    w = resize(cosine, size)
    if not half_cells.any():
        return Correspondence(None, w, evidence(w, curve))
    scale = w.new_tensor([size[0] / (2 * match.shape[-2]), size[1] / (2 * match.shape[-1])]).view(2, 1, 1)
    cells = (resize(half_cells, size) * scale).round().long()
    return Correspondence(rows_at(cells, 1), w, evidence(w, curve))


def combine(keyframe: WeightedLogits, other: WeightedLogits, found: Correspondence) -> WeightedLogits:
    """Combine a keyframe's logits with those of another one; ``found`` says where its positions lie in the other.

    A lerp keeps equal logits bit-identical, whatever the weights.
    """
    added = found.evidence * move(other.weight.clamp_max(MOST_WEIGHT), found.rows, 1)
    weight = keyframe.weight + added
    logits = torch.lerp(keyframe.logits, move(other.logits, found.rows, 1), added / weight)
    return keyframe._replace(logits=logits, weight=weight)


class Side(NamedTuple):
    """A keyframe, and T frames on one side of it."""

    keyframe: WeightedLogits
    found: Correspondence  # where the frames' positions lie in the keyframe
    proximity: Tensor  # (T,) in time, 0…1: 1 at the keyframe, 0 at the one on the frames' other side

    def weights(self) -> Tensor:
        """(T, 1, h, w): weight of the keyframe's logits at each position."""
        # Weights grow from keyframe to keyframe, and the later one should not count more for that alone.
        certainty = self.keyframe.weight / self.keyframe.weight.mean()
        weight = self.found.evidence * move(certainty, self.found.rows, len(self.proximity))
        # In proportion to proximity, labels change gradually, not all in the frames beside a keyframe.
        weight = weight * self.proximity.view(-1, 1, 1, 1).to(weight.dtype)
        # Where neither keyframe has evidence, one of another scene must not be taken.
        return weight + LEAST_SIDE_WEIGHT * (self.found.evidence.amax(dim=(2, 3), keepdim=True) > 0).to(weight.dtype)


class Mixture(NamedTuple):
    """How the logits of two keyframes are combined in T frames between them; they are computed only where needed."""

    sides: Sequence[Side]  # only one if there is no later keyframe
    second: Tensor  # (T, 1, h, w): share of the second side
    similarity: Tensor  # (T, h, w): w of eq. 6 to the keyframe that a position resembles more
    own: Tensor  # (T, 1, h, w): share of the frame itself
    own_fraction: Tensor  # (T,) float32: share of positions where the frame itself is computed, 0 if there are few

    def weighted_mean(self, row: int, values: Sequence[Tensor], where: Tensor | None = None) -> Tensor:
        """Mean (N, ·) of the sides' ``values`` (h·w, ·) at positions of frame ``row``: all, or those given (N,)."""
        gathered = self.gathered(row, values, where)
        if len(gathered) == 1:
            return gathered[0]
        share = self.second[row].view(-1, 1)
        # A lerp leaves equal values bit for bit what they are, whatever the share.
        return torch.lerp(gathered[0], gathered[1], share if where is None else share[where])

    def gathered(self, row: int, values: Sequence[Tensor], where: Tensor | None = None) -> list[Tensor]:
        """The ``values`` (h·w, ·) of each side at the matches of the positions of frame ``row``."""
        count, gathered = self.second[row].numel(), []
        for side, value in zip(self.sides, values, strict=True):
            rows = where
            if side.found.rows is not None:
                rows = side.found.rows[row * count : (row + 1) * count]
                rows = rows if where is None else rows.index_select(0, where)
            gathered.append(value if rows is None else value.index_select(0, rows))
        return gathered


def mix(sides: Sequence[Side]) -> Mixture:
    """Combine the sides of frames between two keyframes, or after one."""
    weights = [side.weights() for side in sides]
    best = sides[0].found
    second = torch.zeros_like(weights[0])
    if len(sides) > 1:
        second = weights[1] / (weights[0] + weights[1]).clamp_min(LEAST_SIDE_WEIGHT)
        best = Correspondence(None, *(torch.maximum(*pair) for pair in zip(best[1:], sides[1].found[1:], strict=True)))
    own = 1 - (best.evidence / ENOUGH_EVIDENCE).clamp_max(1)
    needed = (own > 0).float().mean(dim=(1, 2, 3))
    return Mixture(sides, second, best.similarity[:, 0], own, needed * (needed >= LEAST_COMPUTED_SHARE))
