"""Masks of any program made steady: each pixel says what most masks before and after its frame say of it.

Frames are finished in blocks. Votes come from ``reach`` frames before a block and as many after it, so that results
depend on these alone: not on where a run was stopped and went on, nor on how long the video is.

Letters: H W image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfcseg.inference.ties import FEATURES_EVERY, Link, Linker, Seen, contrast, still
from tfcseg.inference.votes import ONE, Pull, Votes, Weights, decide, no_votes
from tfcseg.media.frames import Frame
from tfcseg.media.mask_form import Mask, count_values, look_up

REACH = 12
"""Masks of this many frames before and after a block vote on it."""

LEAST_REACH = 4
MOST_HELD_BYTES = 3 * 2**27
"""Memory for images that wait for later ones; of large images fewer wait."""

ENOUGH = 3
"""Masks needed to correct one at the end of a scene: with fewer, it is unclear which of them flickers."""

BLOCK = 4
"""Number of reaches of frames that are finished together: the more, the fewer frames vote twice."""

RARITY = 0.22
"""A label that covers the share s of a mask has the weight s to the power of minus this: rare labels are usually right,
and small things must not be outvoted by large ones."""

MOST_SEEN = 4
"""Images that a network sees together."""

_USUAL_SHARE, _LEAST_SHARE = 0.1, 1e-3
_COUNTED_EVERY = 4
_WEIGHTS = (0.5, 4.0)


@dataclass(slots=True, eq=False)
class Looked:
    """A frame that waits, with its mask."""

    frame: Frame
    mask: Mask | None
    link: Link | None
    """To the frame before; None: nothing comes from there."""
    sure: NDArray[np.float32] | None
    """(H, W) 0 to 1: how sure the mask is; None: unknown."""
    void: int | None
    contrast: float | None
    seconds: float
    _weight: Weights | None = field(default=None, init=False)

    def weight(self) -> Weights:
        """(H, W) weight of the mask's labels, none where it is void."""
        assert self.mask is not None
        if self._weight is None:
            weight = look_up(_rarity(self.mask, self.void), self.mask)
            self._weight = weight if self.sure is None else (weight * self.sure).astype(np.uint8)
        return self._weight


@dataclass(frozen=True, slots=True, eq=False)
class Steadied:
    """A frame with its mask, before and after."""

    frame: Frame
    given: Mask | None
    mask: Mask | None
    """None: there was none, and none near enough to say what it would be."""
    similarity: float | None
    contrast: float | None
    seconds: float


def reach_for(image_bytes: int) -> int:
    """``REACH``, or less for large images: results then depend on their size, and on nothing else."""
    return max(LEAST_REACH, min(REACH, MOST_HELD_BYTES // ((BLOCK + 1) * max(1, image_bytes))))


def ahead_for(image_bytes: int) -> int:
    """How many frames to look at before they are needed: while a block is finished, more come."""
    return max(2, min(3 * REACH, MOST_HELD_BYTES // (6 * max(1, image_bytes))))


def looked_at_once(image_bytes: int) -> int:
    """How many frames a network sees together. The mask of the first is compared with the picture's own edges, too."""
    return FEATURES_EVERY * max(1, min(MOST_SEEN, MOST_HELD_BYTES // (24 * max(1, image_bytes))))


def frames_before(image_bytes: int) -> int:
    """How many frames before one `look` must begin, so that `steady` makes the same of it."""
    return (BLOCK + 1) * reach_for(image_bytes) + looked_at_once(image_bytes) - 1


def look(
    frames: Iterable[Frame],
    read: Callable[[int], tuple[Mask | None, NDArray[np.float32] | None]],
    linker: Linker,
    void: int | None,
) -> Iterator[Looked]:
    """Frames with their masks (``read`` gives them by index) and links to the frame before."""
    before: Seen | None = None
    for group in _groups(frames):
        started_s = time.perf_counter()
        # Each group begins with features: what follows depends on no earlier group.
        is_known = before is not None and before.match is not None
        new = [frame for frame in group if not frame.is_held or (frame is group[0] and not is_known)]
        seen = iter(linker.look([frame.image for frame in new]) if new else ())
        share_s = (time.perf_counter() - started_s) / len(group)
        for frame in group:
            started_s = time.perf_counter() - share_s
            now = next(seen) if frame in new else before
            assert now is not None
            mask, sure = read(frame.index)
            link = None if before is None else still(now) if now is before else linker.link(before, now)
            before = now
            edges = contrast(now, mask) if frame is group[0] and mask is not None else None
            yield Looked(
                frame=frame,
                mask=mask,
                link=link,
                sure=sure,
                void=void,
                contrast=edges,
                seconds=time.perf_counter() - started_s,
            )


def _groups(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Frames that are looked at together: always the same ones, since a network's results may depend on that."""
    group: list[Frame] = []
    for frame in frames:
        group.append(frame)
        if (frame.index + 1) % looked_at_once(frame.image.nbytes) == 0:
            yield group
            group = []
    if group:
        yield group


def steady(looked: Iterable[Looked], first: int = 0) -> Iterator[Steadied]:
    """Steadied masks of the frames from index ``first`` on.

    ``looked`` begins with the first frame, or at least `frames_before` before ``first``.
    """
    block: _Block | None = None
    for frame in looked:
        if block is None:
            reach = reach_for(frame.frame.image.nbytes)
            whole = BLOCK * reach
            block = _Block(first, first - first % whole + whole, reach)  # ends as in a run that was not stopped
        block.add(frame)
        if block.is_full:
            yield from block.finished()
            block = block.next()
    while block is not None and block.has_results:
        yield from block.finished()
        block = block.next()


class _Block:
    """Frames up to index ``end`` that are finished together, from ``first`` on, with ``reach`` others on each side."""

    def __init__(self, first: int, end: int, reach: int) -> None:
        self._first, self._end, self._reach = first, end, reach
        self._frames: list[Looked] = []
        self._side: _Side | None = None
        self._before: list[_Side | None] = []
        """What comes to each frame from those before."""
        self._seconds = 0.0

    def add(self, frame: Looked) -> None:
        """Take the next frame, and its vote for those after it."""
        index, started_s = frame.frame.index, time.perf_counter()
        if index < self._end - (BLOCK + 1) * self._reach:
            return
        self._frames.append(frame)
        if index < self._end:
            self._side = _carried(self._side, None if frame.link is None else frame.link.back)
            self._before.append(self._side if index >= self._first else None)
            self._side = _joined(self._side, frame)
        self._seconds += time.perf_counter() - started_s

    @property
    def is_full(self) -> bool:
        """Whether all frames that matter are there."""
        return bool(self._frames) and self._frames[-1].frame.index + 1 == self._end + self._reach

    @property
    def has_results(self) -> bool:
        """Whether it finishes any frame, even if not all are there."""
        return bool(self._frames) and self._frames[-1].frame.index >= self._first

    def finished(self) -> list[Steadied]:
        """The frames with their steadied masks: votes now come from the last one back to the first."""
        started_s = time.perf_counter()
        results: list[Steadied] = []
        side: _Side | None = None
        pull: Pull | None = None
        for frame in reversed(self._frames):
            index, link = frame.frame.index, frame.link
            if index < self._first:
                break
            side = _carried(side, pull)
            if index < self._end:
                results.append(
                    Steadied(
                        frame=frame.frame,
                        given=frame.mask,
                        mask=_decided(frame, self._before.pop(), side),
                        similarity=None if link is None else link.similarity,
                        contrast=frame.contrast,
                        seconds=frame.seconds,
                    )
                )
            side, pull = _joined(side, frame), None if link is None else link.forth
        share_s = (self._seconds + time.perf_counter() - started_s) / max(1, len(results))
        return [replace(each, seconds=each.seconds + share_s) for each in reversed(results)]

    def next(self) -> _Block:
        """The block after this one."""
        block = _Block(self._end, self._end + BLOCK * self._reach, self._reach)
        for frame in self._frames:
            block.add(frame)
        return block


class _Side(NamedTuple):
    """What comes to a frame from one side."""

    votes: Votes
    masks: int
    """How many have voted, without a break."""

    def carried(self, pull: Pull | None) -> _Side | None:
        """The same at the next frame; None if that is of another scene."""
        if pull is None:
            return None
        return _Side(self.votes.carried(pull), self.masks)


def _carried(side: _Side | None, pull: Pull | None) -> _Side | None:
    return None if side is None else side.carried(pull)


def _joined(side: _Side | None, frame: Looked) -> _Side | None:
    if frame.mask is None:
        return side
    votes, masks = side or _Side(no_votes(frame.mask), 0)
    return _Side(votes.joined(frame.mask, frame.weight()), masks + 1)


def _decided(frame: Looked, before: _Side | None, after: _Side | None) -> Mask | None:
    """The mask of a frame as both sides have it; of one without a mask, what they say it would be.

    Where a scene begins or ends the other side alone decides, if ``ENOUGH`` masks agree there on what there is.
    """
    sides = [side for side in (before, after) if side is not None]
    if frame.mask is None:
        if not sides:
            return None
        nothing = np.full_like(sides[0].votes.label, frame.void or 0)
        return decide(nothing, np.zeros(nothing.shape, np.uint8), sides[0].votes, sides[-1].votes)
    if not sides or (len(sides) == 1 and sides[0].masks < ENOUGH):
        return frame.mask
    votes = [no_votes(frame.mask) if side is None else side.votes for side in (before, after)]
    return decide(frame.mask, frame.weight(), votes[0], votes[1], void=frame.void)


def _rarity(mask: Mask, void: int | None) -> Weights:
    """Weight of each value of a mask: what covers less counts more."""
    some: Any = np.ascontiguousarray(mask[::_COUNTED_EVERY, ::_COUNTED_EVERY])
    shares = (count_values(some) / some.size + _LEAST_SHARE) / _USUAL_SHARE
    table: Weights = np.rint(ONE * (shares**-RARITY).clip(*_WEIGHTS)).astype(np.uint8)
    if void is not None:
        table[void] = 0
    return table
