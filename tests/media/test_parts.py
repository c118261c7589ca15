"""A video in parts is the video in one: as many frames, at the same times, whatever the rate."""

from fractions import Fraction

import av
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers.media import numbered_images, read_number
from tfcseg.media.probing import constant_rate
from tfcseg.media.reader import open_frames
from tfcseg.media.writer import VideoWriter, finish_parts

FRAMES = 14
IMAGES = numbered_images(FRAMES, (32, 32))


def write(folder, rate, part_frames, **options):
    """All of ``IMAGES``; the parts begin at multiples of ``part_frames``."""
    parts = []
    for first in range(0, FRAMES, part_frames):
        parts.append(folder / f"{first:04d}.mp4")
        with VideoWriter(parts[-1], size=(32, 32), frame_rate=rate, **options) as part:
            for image in IMAGES[first : first + part_frames]:
                part.write(image)
    finish_parts(parts, folder / "out.mp4", rate, None)
    return folder / "out.mp4"


RATES = st.builds(Fraction, st.integers(1, 1_000_000), st.sampled_from([1, 3, 7, 10, 89, 100, 1000, 1001]))


def is_kept(rate):
    """Whether a rate can be written, and is not so close to a usual one that it is read as that one, rounded."""
    return Fraction(1, 10) <= rate <= 1000 and constant_rate(rate, ()) == rate


@settings(max_examples=10, deadline=None)
@given(RATES.filter(is_kept), st.sampled_from([5, FRAMES]))
@example(Fraction(120000, 1001), 5)
@example(Fraction(240000, 1001), FRAMES)
@example(Fraction(1189, 10), 5)
@example(Fraction(121), FRAMES)
@example(Fraction(1, 10), 5)
@example(Fraction(1000), 5)
def test_all_frames_come_back_at_the_same_rate(tmp_path_factory, rate, part_frames):
    path = write(tmp_path_factory.mktemp("parts"), rate, part_frames)
    with open_frames(path) as source:
        frames = list(source)
    assert [read_number(frame.image) for frame in frames] == list(range(FRAMES))
    assert source.info.frame_rate == rate
    assert source.warnings == []
    assert [frame.time_s for frame in frames] == pytest.approx([number / float(rate) for number in range(FRAMES)])


@pytest.mark.parametrize("part_frames", [5, FRAMES])
@pytest.mark.parametrize("aspect", [Fraction(64, 45), Fraction(45, 64), Fraction(640, 639)])
def test_the_shape_of_pixels_is_kept(tmp_path, part_frames, aspect):
    with av.open(str(write(tmp_path, Fraction(25), part_frames, pixel_aspect=aspect))) as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect
