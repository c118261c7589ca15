import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcseg.shrinking import halved, shrunk


def area_means(image, factor):
    """Means of ``factor`` × ``factor`` pixels."""
    height, width = image.shape[:2]
    parts = image.reshape(height // factor, factor, width // factor, factor, *image.shape[2:])
    return parts.astype(np.float64).mean(axis=(1, 3))


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 3)])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_powers_of_two_are_means(shape, factor):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = shrunk(image, (24 // factor, 16 // factor))
    # Each halving rounds, halves upwards.
    assert np.abs(found - area_means(image, factor)).max() <= 0.5 * np.log2(factor)


def test_one_halving_is_what_opencv_does_at_once():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    assert np.array_equal(shrunk(image, (30, 20)), cv2.resize(image, (30, 20), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize(
    ("source", "least_wh", "wanted"),
    [
        ((2160, 3840), (480, 256), (270, 480)),
        ((1080, 1920), (480, 256), (270, 480)),
        ((480, 854), (480, 256), (480, 854)),  # half of it would be too small
        ((576, 768), (352, 256), (288, 384)),
        ((768, 1366), (352, 192), (384, 683)),  # then a side is odd
        ((767, 1366), (352, 192), (767, 1366)),
        ((64, 4096), (1024, 32), (32, 2048)),  # the short side decides
        ((64, 4096), (2049, 8), (64, 4096)),  # the long side decides
    ],
)
def test_halved_as_often_as_it_can_be(source, least_wh, wanted):
    assert halved(np.zeros((*source, 3), np.uint8), least_wh).shape == (*wanted, 3)


@given(st.integers(40, 300), st.integers(40, 300), st.integers(8, 40), st.integers(8, 40))
def test_close_to_shrinking_at_once(height, width, new_height, new_width):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1.5)
    found = shrunk(image, (new_width, new_height))
    at_once = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    assert found.shape == at_once.shape
    assert np.abs(found.astype(int) - at_once).mean() < 4
