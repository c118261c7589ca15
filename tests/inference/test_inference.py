"""One interval through a model: sizes, options, what the network is fed, and too little memory."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.tiny_model import build_tiny_model, moving_images, write_tiny_model
from tfcseg.errors import TfcsegError, UsageError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.network_input import MAX_ASPECT, network_size
from tfcseg.inference.options import checked_options
from tfcseg.model.options import MODES
from tfcseg.weights.loading import load_model

MODEL = build_tiny_model()
SIDES = st.integers(1, 20_000)


def with_defaults(**values):
    config = MODEL.card.config
    return dataclasses.replace(config, defaults=dataclasses.replace(config.defaults, **values))


def run(images, *, model=MODEL, **options):
    return IntervalNetwork(model, checked_options(model, **options)).run(images)


def assert_same(results, wanted):
    for result, other in zip(results, wanted, strict=True):
        assert (result.labels == other.labels).all()
        assert result.is_keyframe == other.is_keyframe
        assert result.updated_fraction == other.updated_fraction


@pytest.mark.parametrize(
    ("source", "size", "wanted"),
    [
        ((480, 853), 480, (480, 864)),
        ((1080, 1920), 480, (480, 864)),
        ((1920, 1080), 480, (864, 480)),
        ((2160, 3840), 256, (256, 448)),
        ((48, 64), 480, (480, 640)),
        ((7, 7), 64, (64, 64)),
        ((1, 1), 32, (32, 32)),
        ((100, 100), 500, (512, 512)),
        ((16, 10_000), 480, (480, 1920)),
        ((10_000, 16), 480, (1920, 480)),
    ],
)
def test_network_sizes_by_hand(source, size, wanted):
    assert network_size(source, size) == wanted


@given(height=SIDES, width=SIDES, size=st.integers(32, 4096))
def test_network_sizes(height, width, size):
    found = network_size((height, width), size)
    assert all(side >= 32 and side % 32 == 0 for side in found)
    assert abs(min(found) - size) <= 16
    assert max(found) <= MAX_ASPECT * size + 16
    assert network_size((width, height), size) == found[::-1]
    scale = size / min(height, width)
    for side, source in zip(found, (height, width), strict=True):
        assert abs(side - min(source * scale, MAX_ASPECT * size)) <= 16


def test_options_default_to_the_model():
    config = with_defaults(keyframe_interval=7, threshold=0.6, correlation="aligned")
    model = dataclasses.replace(MODEL, card=dataclasses.replace(MODEL.card, config=config))
    options = checked_options(model)
    assert (options.mode, options.keyframe_interval, options.threshold) == ("tfc", 7, 0.6)
    assert (options.size, options.correlation) == (64, "aligned")
    given = checked_options(model, mode="reuse", keyframe_interval=2, threshold=0.0, size=32, correlation="paper")
    assert (given.mode, given.keyframe_interval, given.threshold) == ("reuse", 2, 0.0)
    assert (given.size, given.correlation) == (32, "paper")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "no mode 'fast'; there are tfc, reuse, image"),
        ({"correlation": "optical"}, "no correlation 'optical'; there are paper, aligned"),
        ({"keyframe_interval": 0}, "interval 0 is not between 1 and 1000"),
        ({"keyframe_interval": -4}, "interval -4 is not"),
        ({"keyframe_interval": 1001}, "interval 1001 is not"),
        ({"threshold": -0.1}, "threshold -0.1 is not between 0 and 1"),
        ({"threshold": 1.5}, "threshold 1.5 is not"),
        ({"threshold": float("nan")}, "threshold nan is not"),
        ({"half_size_share": -0.1}, "half size share -0.1 is not between 0 and 1"),
        ({"half_size_share": float("nan")}, "half size share nan is not"),
        ({"latency": "none"}, "no latency 'none'; there are normal, low"),
        ({"size": 31}, "size 31 is not between 32 and 4096"),
        ({"size": 4097}, "size 4097 is not"),
    ],
)
def test_senseless_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        checked_options(MODEL, **options)


@pytest.mark.parametrize(
    ("options", "uses_memory"),
    [
        ({}, True),
        ({"mode": "reuse"}, True),
        ({"mode": "image"}, False),
        ({"keyframe_interval": 1}, False),
        ({"mode": "image", "keyframe_interval": 8}, False),
    ],
)
def test_memory_is_used_between_keyframes_only(options, uses_memory):
    assert checked_options(MODEL, **options).uses_memory == uses_memory


def fed(image, **options):
    """What the network's first layer receives for one image: (3, H', W')."""
    received = []
    first = MODEL.network.backbone.stem
    activated = first.activated

    def noted(x):
        received.append(x.clone())
        return activated(x)

    first.activated = noted
    try:
        run([image], **options)
    finally:
        del first.activated
    return received[0][0]


def test_pixels_are_normalised_by_the_card():
    mean, std = MODEL.card.preprocessing.mean, MODEL.card.preprocessing.std
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :48] = (255, 128, 0)  # RGB, in that order
    tensor = fed(image)
    assert tensor.shape == (3, 64, 96)
    for channel, value in enumerate((255, 128, 0)):
        assert tensor[channel, :, :40] == pytest.approx((value - mean[channel]) / std[channel], abs=1e-5)
        assert tensor[channel, :, 56:] == pytest.approx((0 - mean[channel]) / std[channel], abs=1e-5)


@pytest.mark.parametrize(("source", "how"), [((180, 321), cv2.INTER_AREA), ((45, 70), cv2.INTER_LINEAR)])
def test_pictures_are_resized_whole(source, how):
    """Shrunk over the area that a pixel covers, or fine patterns would flicker; enlarged linearly."""
    image = np.random.default_rng(0).integers(0, 256, (*source, 3), np.uint8)
    height, width = network_size(source, 64)
    small = torch.from_numpy(cv2.resize(image, (width, height), interpolation=how)).permute(2, 0, 1)
    numbers = MODEL.card.preprocessing
    mean, std = (torch.tensor(channels).view(3, 1, 1) for channels in (numbers.mean, numbers.std))
    torch.testing.assert_close(fed(image), (small - mean) / std)


def test_results_are_those_of_a_keyframe_and_its_frames():
    images = moving_images(3)
    first, *others = run(images)
    assert (first.is_keyframe, first.similarity, first.updated_fraction) == (True, None, None)
    for result in others:
        assert not result.is_keyframe
        assert result.similarity.shape == (64 // 4, 96 // 4)
        assert result.similarity.dtype == np.float32
        assert 0 < result.updated_fraction < 1
        assert result.updated_fraction == pytest.approx((result.similarity < 0.8).mean())
    for result in (first, *others):
        assert (result.labels.shape, result.labels.dtype) == ((45, 70), np.uint8)
        assert len(np.unique(result.labels)) > 2
        assert result.model_ms > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_keyframes_are_frames_of_mode_image(precision, tmp_path):
    model = load_model(write_tiny_model(tmp_path / "tiny.safetensors"), device="cpu", precision=precision)
    images = moving_images(4)
    options = {name: checked_options(model, mode=name, sides="one", half_size_share=0.5) for name in ("tfc", "image")}
    keyframe, alone = (IntervalNetwork(model, each).run(images)[0] for each in options.values())
    assert np.array_equal(keyframe.labels, alone.labels)
    assert np.array_equal(keyframe.confidence, alone.confidence)


def test_labels_can_have_another_size():
    images = moving_images(2, (64, 96))
    network = IntervalNetwork(MODEL, checked_options(MODEL))
    assert [result.labels.shape for result in network.run(images, (30, 41))] == [(30, 41)] * 2
    half = network.run(images, (32, 48))
    whole = network.run(images)
    for small, large in zip(half, whole, strict=True):
        assert (small.labels == large.labels[::2, ::2]).mean() > 0.8


def test_frames_of_different_sizes_are_refused():
    with pytest.raises(UsageError, match=r"45×70 and 64×96"):
        run([*moving_images(2), *moving_images(1, (64, 96))])


def test_long_intervals_are_the_same_in_parts():
    images = moving_images(20, (32, 48))
    results = run(images, size=32)
    assert [result.is_keyframe for result in results] == [True] + [False] * 19
    assert_same([results[0], results[18]], run([images[0], images[18]], size=32))


class SmallDevice:
    """A model's network on a device whose memory holds a few images at once."""

    def __init__(self, network, room):
        self._network = network
        self._room = room
        self.backbone = network.backbone
        self.batches = []

    def keyframe(self, image):
        self._reserve(image)
        return self._network.keyframe(image)

    def image(self, image):
        self._reserve(image)
        return self._network.image(image)

    def non_keyframes(self, images, memory, options=None):
        self._reserve(images)
        return self._network.non_keyframes(images, memory, options)

    def _reserve(self, images):
        if len(images) > self._room:
            raise torch.OutOfMemoryError(f"no room for {len(images)} images")
        self.batches.append(len(images))


def test_intervals_are_halved_until_they_fit():
    images = moving_images(10, (32, 48))
    small = SmallDevice(MODEL.network, room=2)
    network = IntervalNetwork(dataclasses.replace(MODEL, network=small), checked_options(MODEL, size=32))
    wanted = run(images, size=32)
    assert_same(network.run(images), wanted)
    assert small.batches == [1, 2, 2, 2, 2, 1]
    assert_same(network.run(images[:4]), wanted[:4])
    assert small.batches[6:] == [1, 2, 1]  # it has learned


@pytest.mark.parametrize("mode", ["tfc", "image"])
def test_a_frame_that_does_not_fit_is_reported(mode):
    model = dataclasses.replace(MODEL, network=SmallDevice(MODEL.network, room=0))
    with pytest.raises(TfcsegError, match=r"too little GPU memory for one frame at --size 64; use a smaller --size"):
        run(moving_images(2), model=model, mode=mode)


def in_turn(network, images):
    """Results interval by interval."""
    length = network.options.keyframe_interval
    return [result for first in range(0, len(images), length) for result in network.run(images[first : first + length])]


def test_images_of_any_sizes_are_computed_in_batches_that_fit():
    """As on a GPU."""
    images = [*moving_images(5, (32, 48)), *moving_images(3, (64, 96))]
    small = SmallDevice(MODEL.network, room=3)
    options = checked_options(MODEL, size=32, mode="image")
    network = IntervalNetwork(dataclasses.replace(MODEL, network=small), options)
    assert network.frames_at_once == 1
    network.chunk = 4
    assert network.frames_at_once == 4
    assert_same(network.run(images), run(images, size=32, mode="image"))
    assert small.batches == [2, 2, 1, 2, 1]
    assert IntervalNetwork(MODEL, checked_options(MODEL)).frames_at_once == 4


@pytest.mark.parametrize("options", [*({"mode": mode} for mode in MODES), {"correlation": "aligned"}])
def test_low_latency_gives_the_same_labels(options):
    images = moving_images(7)
    network = IntervalNetwork(MODEL, checked_options(MODEL, **options, latency="low"))
    asked = []

    def live():
        for index, image in enumerate(images):
            asked.append(index)
            yield image

    results = []
    for result in network.stream(live()):
        results.append(result)
        assert len(asked) == len(results)  # before the next image is asked for
    assert_same(results, in_turn(IntervalNetwork(MODEL, checked_options(MODEL, **options)), images))


def test_low_latency_refuses_a_change_of_size_within_an_interval():
    network = IntervalNetwork(MODEL, checked_options(MODEL, latency="low"))
    results = network.stream([*moving_images(1), *moving_images(1, (64, 96))])
    next(results)
    with pytest.raises(UsageError, match=r"45×70 and 64×96"):
        next(results)
