"""Run intervals of a video through the network, several at the same time, with results in order.

Operations on one frame are too small to keep many cores busy: they wait for each other after each one. On a CPU every
worker therefore computes its own interval on a share of the cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from tfcseg.inference.both_sides import run_both_sides
from tfcseg.inference.engine import FrameResult, IntervalNetwork
from tfcseg.inference.groups import Group
from tfcseg.media.frames import Image
from tfcseg.model.evidence import CarryOver

_T = TypeVar("_T")

MOST_HELD_BYTES = 2**29
"""Bytes of images that wait for workers or are being computed: no further group is taken beyond, so that 8K frames fit
in memory."""


def run_intervals(
    network: IntervalNetwork, groups: Iterable[Group[_T]], before: CarryOver | None = None
) -> Iterator[tuple[_T, list[FrameResult]]]:
    """Yield subject and results of each of ``groups``, consecutive intervals of a video. ``before`` is the carry-over
    of earlier keyframes, where keyframes are weighed.

    Takes up to ``network.workers`` + 1 groups from the iterable before yielding the first result, and holds no more;
    fewer for large frames (``MOST_HELD_BYTES``).
    """
    if network.options.sides != "one":
        yield from run_both_sides(network, groups, before)
        return
    if network.workers > 1:
        yield from _run_beside(network, iter(groups))
        return
    rest = iter(groups)
    while (group := next(rest, None)) is not None:
        subject, results = group.subject, network.run(group.images, group.label_size)
        del group  # nothing of it is held while waiting for the frames of the next one
        yield subject, results
        del subject, results


def stream(network: IntervalNetwork, images: Iterable[Image], before: CarryOver | None = None) -> Iterator[FrameResult]:
    """Yield results frame by frame with low latency, each before the next image is requested."""
    if network.options.sides == "one":
        yield from network.stream(images)
        return
    for _, results in run_both_sides(network, (Group([image], None) for image in images), before):
        yield from results


def _run_beside(network: IntervalNetwork, groups: Iterator[Group[_T]]) -> Iterator[tuple[_T, list[FrameResult]]]:
    pending: deque[tuple[_T, int, Future[list[FrameResult]]]] = deque()  # in the middle the bytes of its images
    at_once = 1
    failure: Exception | None = None
    with network.pool() as pool:
        while True:
            try:
                while (
                    failure is None
                    and len(pending) <= network.workers
                    and sum(size for _, size, _ in pending) < MOST_HELD_BYTES
                    and (group := next(groups, None)) is not None
                ):
                    future = pool.submit(network.run, group.images, group.label_size)
                    pending.append((group.subject, sum(image.nbytes for image in group.images), future))
                    at_once = min(network.workers, max(at_once, len(pending)))
                    del group
            except Exception as error:  # noqa: BLE001  # raised once everything before it is done
                failure = error
            if pending:
                subject, _, computed = pending.popleft()
                # A frame's time is its share of the time in which several intervals were computed.
                yield subject, [replace(result, model_ms=result.model_ms / at_once) for result in computed.result()]
                del subject, computed
            elif failure is not None:
                raise failure
            else:
                return
