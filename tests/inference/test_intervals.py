"""Several intervals at the same time: the results of one after the other, in their order."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import torch

import tfcseg
from tests.helpers.tiny_model import build_tiny_model, moving_images
from tfcseg.errors import InputError, UsageError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.groups import Group
from tfcseg.inference.intervals import run_intervals
from tfcseg.inference.options import checked_options

MODEL = build_tiny_model()


def network(threads, **options):
    """A network whose workers have one thread each."""
    found = IntervalNetwork(MODEL, checked_options(MODEL, **options))
    found.workers = threads
    return found


def groups(images, length=4):
    return [Group(images[first : first + length], first) for first in range(0, len(images), length)]


def assert_same(results, wanted):
    assert [subject for subject, _ in results] == [subject for subject, _ in wanted]
    for (_, own), (_, other) in zip(results, wanted, strict=True):
        for a, b in zip(own, other, strict=True):
            assert (a.labels == b.labels).mean() > 0.999  # rounding may differ with the number of threads
            assert a.is_keyframe == b.is_keyframe
            assert (a.similarity is None) == (b.similarity is None)
            if a.similarity is not None:
                np.testing.assert_allclose(a.similarity, b.similarity, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"correlation": "aligned"},
        {"mode": "image"},
    ],
)
@pytest.mark.parametrize("workers", [2, 3])
def test_side_by_side_is_one_after_the_other(workers, options):
    images = moving_images(18)
    length = 1 if options.get("mode") == "image" else 4
    wanted = list(run_intervals(network(1, **options), groups(images, length)))
    assert_same(list(run_intervals(network(workers, **options), groups(images, length))), wanted)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interval_without_images_has_no_results(workers):
    images = moving_images(8)
    full = groups(images)
    gap = Group([], "gap")
    own = network(workers)
    wanted = list(run_intervals(own, full))
    first, nothing, second = run_intervals(own, [full[0], gap, full[1]])
    assert nothing == ("gap", [])
    assert_same([first, second], wanted)


def test_labels_have_the_size_asked_for():
    for workers in (1, 2):
        group = Group(moving_images(4), "small", (30, 41))
        ((_, results),) = run_intervals(network(workers), [group])
        assert [result.labels.shape for result in results] == [(30, 41)] * 4


def test_a_bad_interval_stops_after_those_before_it():
    images = moving_images(8)
    bad = Group([*moving_images(2), *moving_images(1, (64, 96))], "bad")
    found = run_intervals(network(2), [*groups(images), bad, *groups(images)])
    assert [next(found)[0], next(found)[0]] == [0, 4]
    with pytest.raises(UsageError, match="64×96"):
        next(found)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tfcseg-network")]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_came_before_an_unreadable_frame_is_not_lost(workers):
    def until_it_breaks():
        yield from groups(moving_images(12))
        raise InputError("clip.mp4: damaged")

    found = run_intervals(network(workers), until_it_breaks())
    assert [next(found)[0] for _ in range(3)] == [0, 4, 8]
    with pytest.raises(InputError, match="damaged"):
        next(found)


def test_intervals_are_computed_at_the_same_time(monkeypatch):
    """Two workers meet at a barrier, where one alone would wait for ever."""
    barrier = threading.Barrier(2, timeout=30)
    own = network(2)
    run = own.run

    def meet(*args, **kwargs):
        barrier.wait()
        return run(*args, **kwargs)

    monkeypatch.setattr(own, "run", meet)
    assert [subject for subject, _ in run_intervals(own, groups(moving_images(16)))] == [0, 4, 8, 12]


def test_large_frames_do_not_pile_up(monkeypatch):
    """Groups are taken while fewer bytes are held than the limit: one and a half groups here, so two at a time."""
    images = moving_images(24)
    monkeypatch.setattr("tfcseg.inference.intervals.MOST_HELD_BYTES", 6 * images[0].nbytes)
    taken = []

    def counted():
        for group in groups(images):
            taken.append(group.subject)
            yield group

    seen = [(subject, len(taken)) for subject, _ in run_intervals(network(4), counted())]
    assert seen == [(0, 2), (4, 3), (8, 4), (12, 5), (16, 6), (20, 6)]


def test_results_come_in_order_even_if_the_first_takes_longest(monkeypatch):
    own = network(3)
    run = own.run
    images = moving_images(20)

    def slow_first(given, *args, **kwargs):
        if given[0] is images[0]:
            time.sleep(0.3)
        return run(given, *args, **kwargs)

    monkeypatch.setattr(own, "run", slow_first)
    assert [subject for subject, _ in run_intervals(own, groups(images))] == [0, 4, 8, 12, 16]


def test_threads_are_left_as_they_were(torch_threads):
    torch_threads(3)
    frames = tfcseg.segment(moving_images(30), MODEL)
    next(frames)
    assert sum(thread.name.startswith("tfcseg-network") for thread in threading.enumerate()) == 3
    frames.close()  # half way
    assert torch.get_num_threads() == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tfcseg-network")]
    counts = []
    thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert counts == [3]


def test_long_intervals_and_live_input_go_one_after_the_other(torch_threads):
    torch_threads(4)
    assert IntervalNetwork(MODEL, checked_options(MODEL)).workers == 4
    assert IntervalNetwork(MODEL, checked_options(MODEL, keyframe_interval=100)).workers == 1
    assert IntervalNetwork(MODEL, checked_options(MODEL, latency="low")).workers == 1
    torch_threads(8)
    assert IntervalNetwork(MODEL, checked_options(MODEL)).workers == 4


def test_frames_computed_at_the_same_time_share_it(monkeypatch):
    """Times of frames add up to the time that passed, not to that of all workers."""
    for workers, expected in ((1, 50.0), (2, 25.0)):
        own = network(workers, mode="image")
        run = own.run

        def slow(*args, run=run, **kwargs):
            return [dataclasses.replace(result, model_ms=50.0) for result in run(*args, **kwargs)]

        monkeypatch.setattr(own, "run", slow)
        found = run_intervals(own, groups(moving_images(4), 1))
        assert [result.model_ms for _, results in found for result in results] == [expected] * 4


def test_few_intervals_share_it_among_few(monkeypatch):
    """Three workers, but a short video gives no work to all of them."""
    own = network(3)
    run = own.run

    def slow(*args, **kwargs):
        return [dataclasses.replace(result, model_ms=60.0) for result in run(*args, **kwargs)]

    monkeypatch.setattr(own, "run", slow)
    for intervals, expected in ((1, 60.0), (2, 30.0), (3, 20.0), (5, 20.0)):
        found = run_intervals(own, groups(moving_images(4 * intervals)))
        assert [results[0].model_ms for _, results in found] == [expected] * intervals
