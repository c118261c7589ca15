"""Remove flicker from masks of any program: each pixel takes the label that most masks around its frame give it.

Frames are finished in blocks. Votes come from ``reach`` frames before a block and as many after it. So results depend
on these alone, and not on where a run was stopped and resumed, nor on the length of the video.

Letters: H W image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.inference.links import FEATURES_EVERY, FrameFeatures, Link, Linker, still_link
from tfcseg.inference.votes import ONE, Transfer, Votes, Weights, decide, no_votes
from tfcseg.media.frames import Frame
from tfcseg.media.masks import Mask, count_values, look_up

REACH = 12  # number of frames before and after a block whose masks vote on it

LEAST_REACH = 4
MOST_HELD_BYTES = 3 * 2**27  # memory for images that wait for later ones; fewer large images wait

LEAST_MASKS = 3
"""Number of masks needed to correct one at the end of a scene: with fewer, it is unclear which of them flickers."""

BLOCK = 4  # length of a block, in reaches: the longer, the fewer frames vote twice

RARITY = 0.22
"""A label that covers the share s of a mask has the weight s to the power of minus this: rare labels are usually right,
and small things must not be outvoted by large ones."""

MOST_AT_ONCE = 4  # maximum number of images in a batch of the network

_USUAL_SHARE, _LEAST_SHARE = 0.1, 1e-3
_COUNTED_EVERY = 4
_WEIGHTS = (0.5, 4.0)


@dataclass(slots=True, eq=False)
class LinkedFrame:
    """A frame with its mask, and its link to the frame before."""

    frame: Frame
    mask: Mask | None
    link: Link | None  # to the frame before; None: another scene, or no frame
    sure: NDArray[np.float32] | None  # (H, W) confidence of the mask, 0 to 1; None: unknown
    void: int | None
    seconds: float
    _weight: Weights | None = field(default=None, init=False)

    def weight(self) -> Weights:
        """(H, W) weight of the mask's labels, 0 where it is void."""
        assert self.mask is not None
        if self._weight is None:
            weight = look_up(_rarity(self.mask, self.void), self.mask)
            self._weight = weight if self.sure is None else (weight * self.sure).astype(np.uint8)
        return self._weight


def reach_for(image_bytes: int) -> int:
    """``REACH``, or less for large images. Results then depend on the image size and on nothing else."""
    return max(LEAST_REACH, min(REACH, MOST_HELD_BYTES // ((BLOCK + 1) * max(1, image_bytes))))


def ahead_for(image_bytes: int) -> int:
    """How many frames to prepare ahead, while a block is being finished."""
    return max(2, min(3 * REACH, MOST_HELD_BYTES // (6 * max(1, image_bytes))))


def frames_at_once(image_bytes: int) -> int:
    """How many frames are prepared together."""
    return FEATURES_EVERY * max(1, min(MOST_AT_ONCE, MOST_HELD_BYTES // (24 * max(1, image_bytes))))


def frames_before(image_bytes: int) -> int:
    """How many frames before a frame `link_frames` must begin for the same result."""
    return (BLOCK + 1) * reach_for(image_bytes) + frames_at_once(image_bytes) - 1


def link_frames(
    frames: Iterable[Frame],
    read: Callable[[int], tuple[Mask | None, NDArray[np.float32] | None]],
    linker: Linker,
    void: int | None,
) -> Iterator[LinkedFrame]:
    """Add masks, which ``read`` returns by index, and links to the frame before."""
    before: FrameFeatures | None = None
    # Always the same frames are prepared together, since a network's results may depend on that.
    for _, together in groupby(frames, lambda frame: frame.index // frames_at_once(frame.image.nbytes)):
        group = list(together)
        started_s = time.perf_counter()
        # Each group begins with features, so it depends on no earlier group.
        is_known = before is not None and before.match is not None
        new = [frame for frame in group if not frame.is_held or (frame is group[0] and not is_known)]
        features = iter(linker.features([frame.image for frame in new]) if new else ())
        share_s = (time.perf_counter() - started_s) / len(group)
        for frame in group:
            started_s = time.perf_counter() - share_s
            now = next(features) if frame in new else before
            assert now is not None
            mask, sure = read(frame.index)
            link = None if before is None else still_link(now) if now is before else linker.link(before, now)
            before = now
            yield LinkedFrame(frame, mask, link, sure, void, seconds=time.perf_counter() - started_s)


def steady(frames: Iterable[LinkedFrame], first: int = 0) -> Iterator[tuple[LinkedFrame, Mask | None, float]]:
    """Yield the frames from index ``first`` on with their steadied masks, and the seconds that each took.

    The mask is None if there was none, and none near enough to derive one from.
    ``frames`` begins with the first frame, or at least `frames_before` before ``first``.
    """
    block: _Block | None = None
    for frame in frames:
        if block is None:
            reach = reach_for(frame.frame.image.nbytes)
            whole = BLOCK * reach
            block = _Block(first, first - first % whole + whole, reach)  # ends as in a run that was not stopped
        block.add(frame)
        last = frame.frame.index
        if last + 1 == block.end + block.reach:
            yield from block.finished()
            block = block.next()
    while block is not None and last >= block.first:
        yield from block.finished()
        block = block.next()


class _Block:
    """Frames up to index ``end`` that are finished together, from ``first`` on, with ``reach`` others on each side."""

    def __init__(self, first: int, end: int, reach: int) -> None:
        self.first, self.end, self.reach = first, end, reach
        self._frames: list[LinkedFrame] = []
        self._side: Votes | None = None
        self._before: list[Votes | None] = []  # votes of the frames before each frame
        self._seconds = 0.0

    def add(self, frame: LinkedFrame) -> None:
        """Add the next frame, and its vote for later ones."""
        index, started_s = frame.frame.index, time.perf_counter()
        if index < self.end - (BLOCK + 1) * self.reach:
            return
        self._frames.append(frame)
        if index < self.end:
            self._side = _carried(self._side, None if frame.link is None else frame.link.back)
            self._before.append(self._side if index >= self.first else None)
            self._side = _joined(self._side, frame)
        self._seconds += time.perf_counter() - started_s

    def finished(self) -> Iterator[tuple[LinkedFrame, Mask | None, float]]:
        """Finish the frames, with votes that are passed from the last one back to the first."""
        started_s = time.perf_counter()
        results: list[tuple[LinkedFrame, Mask | None]] = []
        side: Votes | None = None
        transfer: Transfer | None = None
        for frame in reversed(self._frames):
            index, link = frame.frame.index, frame.link
            if index < self.first:
                break
            side = _carried(side, transfer)
            if index < self.end:
                results.append((frame, _decided(frame, self._before.pop(), side)))
            side, transfer = _joined(side, frame), None if link is None else link.forth
        share_s = (self._seconds + time.perf_counter() - started_s) / max(1, len(results))
        for frame, mask in reversed(results):
            yield frame, mask, frame.seconds + share_s

    def next(self) -> _Block:
        block = _Block(self.end, self.end + BLOCK * self.reach, self.reach)
        for frame in self._frames:
            block.add(frame)
        return block


def _carried(side: Votes | None, transfer: Transfer | None) -> Votes | None:
    return None if side is None or transfer is None else side.carried(transfer)


def _joined(side: Votes | None, frame: LinkedFrame) -> Votes | None:
    return side if frame.mask is None else (side or no_votes(frame.mask)).joined(frame.mask, frame.weight())


def _decided(frame: LinkedFrame, before: Votes | None, after: Votes | None) -> Mask | None:
    """Correct the mask of a frame by the votes of both sides, or derive one from them if there is none. Where a scene
    begins or ends, the other side alone decides, if it has ``LEAST_MASKS`` masks."""
    sides = [side for side in (before, after) if side is not None]
    if frame.mask is None:
        if not sides:
            return None
        nothing = np.full_like(sides[0].label, frame.void or 0)
        return decide(nothing, np.zeros(nothing.shape, np.uint8), sides[0], sides[-1])
    if not sides or (len(sides) == 1 and sides[0].masks < LEAST_MASKS):
        return frame.mask
    nobody = no_votes(frame.mask)
    return decide(frame.mask, frame.weight(), before or nobody, after or nobody, void=frame.void)


def _rarity(mask: Mask, void: int | None) -> Weights:
    """Weight of each value of a mask: the smaller its share, the greater."""
    some: Any = np.ascontiguousarray(mask[::_COUNTED_EVERY, ::_COUNTED_EVERY])
    shares = (count_values(some) / some.size + _LEAST_SHARE) / _USUAL_SHARE
    table: Weights = np.rint(ONE * (shares**-RARITY).clip(*_WEIGHTS)).astype(np.uint8)
    if void is not None:
        table[void] = 0
    return table
