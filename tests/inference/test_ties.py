"""Links between frames, on pictures that move by known steps."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from tests.helpers.tiny_model import write_tiny_model
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.inference.ties import FEATURES_EVERY, Linker
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import open_model

SIZE = (96, 160)
STEP = 4
"""Half a cell of the features: in two frames they move by a whole one, and stay what they are."""


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
    seen = linker.look(images)
    return [linker.link(*pair) for pair in pairwise(seen)]


def test_steps_lead_to_where_things_were(network):
    for link in links(network, [picture(STEP * at) for at in range(5)]):
        back, forth = (np.median(pull.steps, axis=(0, 1)) for pull in (link.back, link.forth))
        assert back.tolist() == [-STEP, 0]
        assert forth.tolist() == [STEP, 0]


def test_nothing_moves_in_a_still_picture(network):
    for link in links(network, [picture()] * 3):
        assert link.back.steps is None
        assert link.forth.steps is None


def test_features_are_compared_along_the_way_since_they_were_last_seen(network):
    """They are of every second frame only, but what moves stays the same all the way."""
    images = [picture(STEP * at) for at in range(2 * FEATURES_EVERY + 1)]
    found = links(network, images)
    assert found[0].similarity is None
    assert min(link.similarity for link in found[1:]) > 0.9
    assert found[1].similarity == found[2].similarity != found[3].similarity
    network_sees = [seen.match is not None for seen in Linker(network).look(images)]
    assert network_sees == [at % FEATURES_EVERY == 0 for at in range(len(images))]


def test_a_cut_ends_the_way(network):
    images = [picture(), picture(STEP), picture(0, seed=1), picture(STEP, seed=1), picture(2 * STEP, seed=1)]
    found = links(network, images)
    assert found[1] is None
    assert found[2].similarity is None
    assert found[3].similarity > 0.9


def test_sizes_that_differ_are_not_linked(network):
    linker = Linker(network)
    one, other = linker.look([picture()])[0], linker.look([picture()[:64]])[0]
    assert linker.link(one, other) is None
