"""Reading ahead: order, exceptions, early ends and the bound."""

import threading
import time

import pytest

from tfcseg.media.frames import prefetch

NAME = "tfcseg-read-ahead"


def is_reading():
    return any(thread.name.startswith(NAME) for thread in threading.enumerate())


def wait_until(condition, timeout_s=10.0):
    end_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.005)
    return condition()


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not is_reading()


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_items_come_in_order(depth):
    assert list(prefetch(iter(range(50)), depth)) == list(range(50))


@pytest.mark.parametrize("items", [[], [None], [False, None, 0], [ValueError("as an item")]])
def test_any_object_is_an_item(items):
    assert list(prefetch(items, 2)) == items


def test_an_exception_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise LookupError("the third is missing")

    reader = prefetch(items(), 8)
    assert [next(reader), next(reader)] == [1, 2]
    with pytest.raises(LookupError, match="the third is missing"):
        next(reader)
    assert list(reader) == []


def test_an_interrupt_in_the_thread_reaches_the_consumer():
    def items():
        yield 1
        raise KeyboardInterrupt

    came = []

    def consume():
        try:
            came.extend(prefetch(items(), 1))
        except BaseException as error:  # noqa: BLE001  # what came is what is tested
            came.append(type(error))

    # In a thread of its own: what is lost would be waited for for ever.
    consumer = threading.Thread(target=consume, daemon=True)
    consumer.start()
    consumer.join(10)
    assert came == [1, KeyboardInterrupt]


def test_nothing_is_read_before_the_first_item_is_wanted():
    taken = []
    prefetch((taken.append(number) for number in range(3)), 2)
    assert taken == []
    assert not is_reading()


def test_no_more_than_depth_items_wait():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    reader = prefetch(items(), 4)
    for wanted in range(3):
        assert next(reader) == wanted
        # Those already yielded, four that wait, and one in the thread's hands.
        assert wait_until(lambda: len(taken) == wanted + 1 + 4 + 1)  # noqa: B023  # called at once
        time.sleep(0.02)
        assert len(taken) == wanted + 1 + 4 + 1
    reader.close()


def test_closing_early_stops_the_thread_and_nothing_else():
    closed = []

    def items():
        try:
            yield from range(10)
        finally:
            closed.append(True)

    source = items()
    reader = prefetch(source, 2)
    assert next(reader) == 0
    reader.close()
    assert not is_reading()
    assert closed == []  # the items are their owner's
    rest = list(source)
    assert rest == list(range(rest[0], 10))
    assert 1 <= rest[0] <= 4
    assert closed == [True]


def test_closing_waits_for_the_item_at_hand():
    """Its owner may close the items right after: they must not be in use then."""
    may_go_on, has_begun, has_ended = threading.Event(), threading.Event(), threading.Event()

    def items():
        yield 0
        has_begun.set()
        may_go_on.wait(10)
        has_ended.set()
        yield 1

    source = items()
    reader = prefetch(source, 2)
    assert next(reader) == 0
    assert has_begun.wait(10)
    threading.Timer(0.05, may_go_on.set).start()
    reader.close()
    assert has_ended.is_set()
    source.close()  # ValueError if the thread were still inside


def test_an_error_in_the_consumer_stops_the_thread():
    def consume():
        for item in prefetch(iter(range(100)), 2):
            if item == 3:
                raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        consume()
    assert wait_until(lambda: not is_reading())


def test_reading_and_working_overlap():
    """Each side waits for the other's next step: one thread alone would wait for ever."""
    is_working = threading.Event()

    def items():
        yield 0
        assert is_working.wait(10), "the consumer had to wait for the second item before it could use the first"
        yield 1

    reader = prefetch(items(), 1)
    assert next(reader) == 0
    is_working.set()
    assert list(reader) == [1]
