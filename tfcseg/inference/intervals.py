"""Intervals of a video through the network, several at the same time, their results in order.

An operation of the network on one frame is too small to keep many cores busy: they wait for each other at the end of
each. On a processor every worker therefore computes an interval of its own on a share of the cores. What keyframes take
over from each other is handed on as soon as it is known, long before the interval it comes from is finished.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from tfcseg.inference.both_sides import run_both_sides
from tfcseg.inference.engine import FrameResult, IntervalNetwork
from tfcseg.inference.groups import Group
from tfcseg.model.evidence import HandedOn

_T = TypeVar("_T")

MOST_HELD_BYTES = 2**29
"""Images that wait for workers or are with them: no further group is taken beyond, so that 8K frames fit in memory."""


@dataclass(slots=True)
class _Pending(Generic[_T]):
    """A group that a worker computes or will; at most ``beside`` were pending at the same time, itself included."""

    subject: _T
    future: Future[list[FrameResult]]
    image_bytes: int
    beside: int = 1

    def finished(self, workers: int) -> tuple[_T, list[FrameResult]]:
        """Subject and results; a frame took its share of the time in which so many intervals were computed at once."""
        at_once = min(workers, self.beside)
        return self.subject, [replace(result, model_ms=result.model_ms / at_once) for result in self.future.result()]


def run_intervals(
    network: IntervalNetwork, groups: Iterable[Group[_T]], before: HandedOn | None = None
) -> Iterator[tuple[_T, list[FrameResult]]]:
    """Subject and results of each of ``groups``, the consecutive intervals of one video; ``before`` is their first's.

    Takes up to ``network.workers`` + 1 groups from the iterable before it yields the first result, and holds no more;
    of large frames fewer (``MOST_HELD_BYTES``).
    """
    if network.options.sides == "both":
        yield from run_both_sides(network, groups, before)
        return
    if network.workers > 1:
        yield from _run_beside(network, iter(groups), before)
        return
    rest = iter(groups)
    # A function for each group: nothing of it is held while the frames of the next one are awaited.
    while (found := _run_next(network, rest, before)) is not None:
        subject, results = found
        before = results[-1].carried if results else before
        del found
        yield subject, results
        del subject, results


def _run_next(
    network: IntervalNetwork, groups: Iterator[Group[_T]], before: HandedOn | None
) -> tuple[_T, list[FrameResult]] | None:
    group = next(groups, None)
    if group is None:
        return None
    return group.subject, network.run_many(group.images, None if group.begins_section else before, group.label_size)


def _run_beside(
    network: IntervalNetwork, groups: Iterator[Group[_T]], before: HandedOn | None
) -> Iterator[tuple[_T, list[FrameResult]]]:
    threads = torch.get_num_threads()
    pending: deque[_Pending[_T]] = deque()
    failure: Exception | None = None
    handed_on = _done(before)
    with ExitStack() as stack:
        # Every worker tells torch its own share; what new threads of others get is put right again at the end.
        stack.callback(torch.set_num_threads, threads)
        share = max(1, threads // network.workers)
        pool = ThreadPoolExecutor(network.workers, "tfcseg-network", torch.set_num_threads, (share,))
        stack.callback(pool.shutdown, cancel_futures=True)
        while True:
            try:
                while (
                    failure is None
                    and len(pending) <= network.workers
                    and sum(each.image_bytes for each in pending) < MOST_HELD_BYTES
                    and (group := next(groups, None)) is not None
                ):
                    passed: Future[HandedOn | None] = Future()
                    taken = _done(None) if group.begins_section else handed_on
                    future = pool.submit(_run_one, network, group, taken, passed)
                    pending.append(_Pending(group.subject, future, sum(image.nbytes for image in group.images)))
                    for each in pending:
                        each.beside = max(each.beside, len(pending))
                    handed_on = passed
                    del group
            except Exception as error:  # noqa: BLE001  # raised once everything before it is done
                failure = error
            if pending:
                yield pending.popleft().finished(network.workers)
            elif failure is not None:
                raise failure
            else:
                return


def _done(handed_on: HandedOn | None) -> Future[HandedOn | None]:
    future: Future[HandedOn | None] = Future()
    future.set_result(handed_on)
    return future


def _run_one(
    network: IntervalNetwork, group: Group[_T], before: Future[HandedOn | None], passed: Future[HandedOn | None]
) -> list[FrameResult]:
    """One interval in a worker: waits for ``before`` when it needs it, and keeps nobody waiting for ``passed``.

    Groups start in their order, so that the one waited for is always under way.
    """
    try:
        if not group.images:
            return []
        return network.run(group.images, group.label_size, before.result, hand_on=passed.set_result)
    finally:
        if not passed.done():
            passed.set_result(None if group.images else before.result())


__all__ = ["Group", "run_intervals"]
