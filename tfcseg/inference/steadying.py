"""Masks of any program made steady: each pixel says what most masks before and after its frame say of it.

Frames are finished in blocks. Votes come from ``reach`` frames before a block and as many after it, so that results
depend on these alone: not on where a run was stopped and went on, nor on how long the video is.

Letters: H W image.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfcseg.inference.ties import Link, Linker, Pull, Seen, contrast, still
from tfcseg.inference.votes import ONE, Votes, Weights, decide, no_votes
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

LOOKED_AT_ONCE = 4
"""Frames that a network sees together."""

_CONTRAST_EVERY = 8
"""Frames from one whose mask is compared with the picture's own edges to the next."""

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
    return max(2, min(2 * REACH, MOST_HELD_BYTES // (6 * max(1, image_bytes))))


def frames_before(image_bytes: int) -> int:
    """How many frames before one `look` must begin, so that `steady` makes the same of it."""
    return (BLOCK + 1) * reach_for(image_bytes) + LOOKED_AT_ONCE - 1


def see(frames: Iterable[Frame], linker: Linker) -> Iterator[tuple[Frame, Seen, float]]:
    """Frames with what is compared of each, and how many seconds that took."""
    seen: Seen | None = None
    for group in _groups(frames):
        started_s = time.perf_counter()
        new = [frame for frame in group if not frame.is_held or (seen is None and frame is group[0])]
        found = iter(linker.look([frame.image for frame in new]) if new else ())
        share_s = (time.perf_counter() - started_s) / len(group)
        for frame in group:
            seen = next(found) if frame in new else seen
            assert seen is not None
            yield frame, seen, share_s


def look(
    frames: Iterable[tuple[Frame, Seen, float]],
    read: Callable[[int], tuple[Mask | None, NDArray[np.float32] | None]],
    linker: Linker,
    void: int | None,
) -> Iterator[Looked]:
    """Frames as `see` gives them, with their masks (``read`` gives them by index) and links to the frame before."""
    before: Seen | None = None
    for frame, now, seconds in frames:
        started_s = time.perf_counter() - seconds
        mask, sure = read(frame.index)
        link = None if before is None else still(now) if now is before else linker.link(before, now)
        before = now
        edges = None if mask is None or frame.index % _CONTRAST_EVERY else contrast(now, mask)
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
    """Frames that a network sees together: always the same ones, since its results may depend on that."""
    group: list[Frame] = []
    for frame in frames:
        group.append(frame)
        if frame.index % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1:
            yield group
            group = []
    if group:
        yield group


def steady(looked: Iterable[Looked], first: int = 0) -> Iterator[Steadied]:
    """Steadied masks of the frames from index ``first`` on.

    ``looked`` begins with the first frame, or at least `frames_before` before ``first``.
    """
    held: deque[Looked] = deque()
    reach, end = 0, 0
    for frame in looked:
        if not reach:
            reach = reach_for(frame.frame.image.nbytes)
            end = first - first % (BLOCK * reach) + BLOCK * reach
        if frame.frame.index >= end - (BLOCK + 1) * reach:  # as in a run that was not stopped
            held.append(frame)
        if frame.frame.index + 1 == end + reach:
            yield from _block(held, max(first, end - BLOCK * reach), end)
            while held[0].frame.index < end - reach:
                held.popleft()
            end += BLOCK * reach
    while reach and held and end - BLOCK * reach <= held[-1].frame.index:
        yield from _block(held, max(first, end - BLOCK * reach), end)
        end += BLOCK * reach


def _block(held: deque[Looked], first: int, end: int) -> list[Steadied]:
    """Results for the frames from ``first`` up to ``end`` among those that are held."""
    started_s = time.perf_counter()
    start = held[0].frame.index
    wanted = range(first - start, min(end, held[-1].frame.index + 1) - start)
    frames = list(held)
    before: dict[int, _Side | None] = {}
    side: _Side | None = None
    for at, frame in enumerate(frames[: wanted.stop]):
        side = _carried(side, None if frame.link is None else frame.link.back)
        if at in wanted:
            before[at] = side
        side = _joined(side, frame)
    results: list[Steadied] = []
    side = None
    for at in reversed(range(wanted.start, len(frames))):
        frame = frames[at]
        link = frames[at + 1].link if at + 1 < len(frames) else None
        side = _carried(side, None if link is None else link.forth)
        if at in wanted:
            mask = _decided(frame, before.pop(at), side)
            similarity = None if frame.link is None else frame.link.similarity
            results.append(
                Steadied(
                    frame=frame.frame,
                    given=frame.mask,
                    mask=mask,
                    similarity=similarity,
                    contrast=frame.contrast,
                    seconds=frame.seconds,
                )
            )
        side = _joined(side, frame)
    share_s = (time.perf_counter() - started_s) / max(1, len(results))
    return [replace(each, seconds=each.seconds + share_s) for each in reversed(results)]


class _Side(NamedTuple):
    """What comes to a frame from one side."""

    votes: Votes
    masks: int
    """How many have voted, without a break."""

    def carried(self, pull: Pull | None) -> _Side | None:
        """The same at the next frame; None if that is of another scene."""
        if pull is None:
            return None
        height, width = self.votes.label.shape
        return _Side(self.votes.carried(pull.tie((height, width))), self.masks)


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
