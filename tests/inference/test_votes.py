"""Votes of labels, by hand and against a plain count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcseg.inference.votes import ONE, Transfer, Votes, decide, no_votes

FULL = 255


def mask(*values, dtype=np.uint8):
    return np.array([values], dtype)


def weight(*values):
    return np.array([values], np.uint8)


def whole(values, share=FULL):
    return Transfer(None, np.full(values.shape, share, np.uint8))


def passed(masks, share=FULL):
    """Votes of masks one after the other."""
    votes = no_votes(masks[0])
    for each in masks:
        votes = votes.carried(whole(each, share)).joined(each, np.full(each.shape, ONE, np.uint8))
    return votes


def test_the_lead_is_over_all_other_labels():
    votes = passed([mask(3), mask(7), mask(7)])
    assert (votes.label, votes.lead) == (7, ONE)
    assert passed([mask(3), mask(3), mask(3), mask(7), mask(9)]).lead == ONE


def test_another_label_leads_only_with_more_weight():
    twice = passed([mask(3), mask(3)])
    assert twice.joined(mask(7), weight(2 * ONE)).label == 3
    votes = twice.joined(mask(7), weight(2 * ONE + 1))
    assert (votes.label, votes.lead) == (7, 1)


def test_leads_end_at_255():
    votes = no_votes(mask(3))
    for _ in range(20):
        votes = votes.joined(mask(3), weight(4 * ONE))
    assert (votes.label, votes.lead) == (3, 255)


def test_votes_fade():
    votes = passed([mask(3)]).carried(whole(mask(3), FULL // 2))
    assert votes.lead == pytest.approx(ONE / 2, abs=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_votes_come_from_where_things_were(dtype):
    labels = (1, 2, 3) if dtype == np.uint8 else (1, 65535, 300)
    votes = no_votes(mask(*labels, dtype=dtype)).joined(mask(*labels, dtype=dtype), weight(10, 20, 255))
    steps = np.array([[[1, 0], [1, 0], [9, 0]]], np.int16)  # x, y; beyond the edge lies the edge
    moved = votes.carried(Transfer(steps, np.full((1, 3), FULL, np.uint8)))
    assert moved.label.dtype == dtype
    assert moved.label.tolist() == [[labels[1], labels[2], labels[2]]]
    assert moved.lead.tolist() == [[20, 255, 255]]


@pytest.mark.parametrize("size", [(1, 1), (40, 60), (300, 700)])
def test_strips_are_moved_like_the_whole(monkeypatch, size):
    rng = np.random.default_rng(0)
    steps = rng.integers(-9, 9, (20, 24, 2)).astype(np.int16)
    transfer = Transfer(steps, rng.integers(0, 256, (20, 24)).astype(np.uint8))
    label, lead = (rng.integers(0, 256, size).astype(np.uint8) for _ in range(2))
    found = Votes(label, lead).carried(transfer)
    monkeypatch.setattr("tfcseg.inference.votes._STRIP_PX", size[0] * size[1])
    whole = Votes(label, lead).carried(transfer)
    assert np.array_equal(found.label, whole.label)
    assert np.array_equal(found.lead, whole.lead)


@pytest.mark.parametrize("size", [(3, 30000), (601, 333)])
def test_votes_stay_where_nothing_moves(size):
    labels = np.random.default_rng(0).integers(0, 65536, size).astype(np.uint16)
    votes = no_votes(labels).joined(labels, np.full(size, 9, np.uint8))
    found = votes.carried(Transfer(np.zeros((20, 24, 2), np.int16), np.full((20, 24), FULL, np.uint8)))
    assert np.array_equal(found.label, labels)
    assert np.array_equal(found.lead, votes.lead)


def test_a_flicker_goes_and_a_change_stays():
    ones = np.full((1, 1), ONE, np.uint8)
    around = passed([mask(3), mask(3)]), passed([mask(3), mask(3)])
    assert decide(mask(7), ones, *around) == 3
    change = passed([mask(3), mask(3)]), passed([mask(7), mask(7)])
    assert decide(mask(7), ones, *change) == 7
    assert decide(mask(3), ones, *change) == 3


def test_a_tie_leaves_the_mask():
    ones = np.full((1, 1), ONE, np.uint8)
    assert decide(mask(7), ones, passed([mask(3)]), no_votes(mask(7))) == 7


def test_what_nobody_contests_is_the_same_array():
    own = mask(5, 5)
    assert decide(own, np.full((1, 2), ONE, np.uint8), passed([own]), passed([own])) is own


def test_void_stays():
    ones = np.full((1, 1), ONE, np.uint8)
    around = passed([mask(3), mask(3)])
    assert decide(mask(255), ones, around, around) == 3
    assert decide(mask(255), ones, around, around, void=255) == 255


def test_what_leads_on_both_sides_beats_what_leads_on_one():
    ones = np.full((1, 1), ONE, np.uint8)
    threes, fours = passed([mask(3), mask(3)]), passed([mask(4), mask(4), mask(4)])
    assert decide(mask(7), ones, threes, fours) == 4
    assert decide(mask(7), ones, threes, threes) == 3
    assert decide(mask(3), ones, threes, fours) == 3  # its own weight and the one side's are as much as the other's


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_with_two_labels_it_is_a_plain_count(dtype, data):
    """Where a pixel ever has two labels only, votes are exact."""
    low, high = (7, 200) if dtype == np.uint8 else (300, 60000)
    frames = data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=3, max_size=9))
    masks = [np.where(np.array([row]), dtype(high), dtype(low)) for row in frames]
    at = data.draw(st.integers(1, len(masks) - 2))
    before, after = passed(masks[:at]), passed(masks[:at:-1])
    result = decide(masks[at], np.full((1, 4), ONE, np.uint8), before, after)
    counts = np.sum([each == high for each in masks], axis=0)
    expected = np.where(2 * counts > len(masks), high, np.where(2 * counts < len(masks), low, masks[at]))
    assert result.tolist() == expected.tolist()
