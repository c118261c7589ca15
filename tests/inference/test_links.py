"""Links between frames, on pictures that move by known steps."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from tests.helpers.tiny_model import write_tiny_model
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.links import FEATURES_EVERY, Linker
from tfcseg.inference.options import checked_options
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import open_model

SIZE = (96, 160)
STEP = 8
"""A cell of the features, which stay what they are when they move by whole ones."""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    model = open_model(write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors"), DeviceOptions("cpu"))
    return IntervalNetwork(model, checked_options(model))


def picture(shift=0, seed=0):
    """(H, W, 3) smooth noise, moved to the right."""
    small = np.random.default_rng(seed).integers(0, 256, (16, 48, 3), np.uint8)
    wide = cv2.resize(small, (2 * SIZE[1], SIZE[0]), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(wide[:, SIZE[1] // 2 - shift : SIZE[1] // 2 - shift + SIZE[1]])


def links(network, images):
    linker = Linker(network)
    seen = linker.features(images)
    return [linker.link(*pair) for pair in pairwise(seen)]


def test_steps_lead_to_where_things_were(network):
    for link in links(network, [picture(STEP * at) for at in range(5)]):
        back, forth = (np.median(transfer.steps, axis=(0, 1)) for transfer in (link.back, link.forth))
        assert back.tolist() == [-STEP, 0]
        assert forth.tolist() == [STEP, 0]


def test_nothing_moves_in_a_still_picture(network):
    for link in links(network, [picture()] * 3):
        assert link.back.steps is None
        assert link.forth.steps is None


def test_features_are_compared_along_the_way_since_they_were_last_seen(network):
    """Not all frames have any, but what moves stays the same all the way."""
    images = [picture(STEP * at) for at in range(2 * FEATURES_EVERY + 1)]
    seen = Linker(network).features(images)
    assert [each.match is not None for each in seen] == [at % FEATURES_EVERY == 0 for at in range(len(images))]
    found = [link.similarity for link in links(network, images)]
    assert found[: FEATURES_EVERY - 1] == [None] * (FEATURES_EVERY - 1)
    assert min(found[FEATURES_EVERY - 1 :]) > 0.85
    assert found[FEATURES_EVERY - 1] == found[FEATURES_EVERY] != found[-1]


def test_a_cut_ends_the_way(network):
    count = 2 * FEATURES_EVERY + 1
    found = links(network, [picture(STEP * at, seed=int(at >= FEATURES_EVERY - 1)) for at in range(count)])
    assert [at for at, link in enumerate(found) if link is None] == [FEATURES_EVERY - 2]
    assert found[FEATURES_EVERY - 1].similarity is None
    assert found[-1].similarity > 0.85


def test_sizes_that_differ_are_not_linked(network):
    linker = Linker(network)
    one, other = linker.features([picture()])[0], linker.features([picture()[:64]])[0]
    assert linker.link(one, other) is None
