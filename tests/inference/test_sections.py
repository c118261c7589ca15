"""Sections of a video: each depends on the end of the one before, and on nothing older."""

import itertools

import numpy as np
import pytest

from tests.helpers.tiny_model import build_tiny_model, moving_images
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.groups import SECTION_PARTS
from tfcseg.inference.options import checked_options
from tfcseg.inference.segment import segment_frames
from tfcseg.media.frames import Frame
from tfcseg.model.evidence import SectionEnd
from tfcseg.runs.job import load_carried, save_carried

PART = 3
SECTION = SECTION_PARTS * PART
FRAMES = SECTION + PART + 1
MODEL = build_tiny_model()


def segment(frames, before=None, **options):
    network = IntervalNetwork(MODEL, checked_options(MODEL, sides="both"))
    return list(segment_frames(iter(frames), network, before, PART, **options))


@pytest.fixture(scope="module")
def frames():
    return [Frame(index, index / 25, image, False) for index, image in enumerate(moving_images(FRAMES))]


@pytest.fixture(scope="module")
def whole(frames):
    return segment(frames)


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.index == other.index
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.confidence_grid, other.confidence_grid)
        assert one.is_keyframe == other.is_keyframe


def test_a_worker_needs_a_section_and_the_end_before_it(frames, whole):
    found = segment(frames[SECTION - PART :], wanted_from=SECTION)
    assert_same(found[PART:], whole[SECTION:])
    assert all(frame.labels.size == 0 for frame in found[:PART])


def test_it_needs_no_more_frames_after_it_than_keyframes_reach(frames, whole):
    read = []

    def watched():
        for frame in frames:
            read.append(frame.index)
            yield frame

    network = IntervalNetwork(MODEL, checked_options(MODEL, sides="both"))
    found = list(itertools.islice(segment_frames(watched(), network, None, PART), 4))
    assert_same(found, whole[:4])
    assert len(read) < FRAMES


def test_what_is_older_is_forgotten(frames, whole):
    other = [*frames[: SECTION - PART][::-1], *frames[SECTION - PART :]]
    other = [Frame(index, frame.time_s, frame.image, False) for index, frame in enumerate(other)]
    found = segment(other)
    assert_same(found[SECTION:], whole[SECTION:])
    assert any((one.labels != two.labels).any() for one, two in zip(found[:SECTION], whole[:SECTION], strict=True))


@pytest.mark.parametrize("at", [SECTION - PART, SECTION - 1, SECTION, SECTION + PART])
def test_a_run_goes_on_from_any_place_at_the_border(frames, whole, at, tmp_path):
    last = max((frame for frame in whole[:at] if frame.ends_group), key=lambda frame: frame.index)
    save_carried(tmp_path / "carried.npz", last.carried)
    is_in_end = SECTION - PART <= last.index < SECTION
    assert isinstance(last.carried, SectionEnd) == is_in_end
    assert_same(segment(frames[last.index + 1 :], load_carried(tmp_path / "carried.npz")), whole[last.index + 1 :])
