"""Large areas at two sizes: the equation by hand, and what frames between keyframes take over."""

import pytest
import torch
from torch.nn import functional as F

from tests.helpers.tiny_model import build_tiny_model, moving_images
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.model.alignment import move
from tfcseg.model.large_areas import AREAS, correction
from tfcseg.model.options import CORRELATIONS, InferenceOptions

MODEL = build_tiny_model()


def test_means_of_areas_come_from_both_sizes():
    torch.manual_seed(0)
    logits, half = torch.randn(2, 3, 16, 24), torch.randn(2, 3, 8, 12)
    missing = correction(logits, half, 0.5)
    assert missing.shape == (2, 3, AREAS, AREAS * 24 // 16)
    block, small = logits[1, 2, 4:8, 8:12].mean(), half[1, 2, 2:4, 4:6].mean()
    assert missing[1, 2, 1, 2] == pytest.approx(0.5 * (small - block).item(), abs=1e-6)


def test_what_both_sizes_agree_on_stays():
    logits = torch.randn(1, 5, 16, 16)
    assert correction(logits, F.avg_pool2d(logits, 2), 1.0).abs().max() < 1e-6


def test_upright_pictures_have_the_same_areas():
    logits, half = torch.randn(1, 2, 24, 16), torch.randn(1, 2, 12, 8)
    turned = correction(logits.mT, half.mT, 0.5).mT
    assert torch.allclose(correction(logits, half, 0.5), turned, atol=1e-6)


@torch.inference_mode()
def test_the_image_network_sees_two_sizes():
    image = moving_images(1)[0]
    network = IntervalNetwork(MODEL, checked_options(MODEL, mode="image", half_size_share=0.5, size=128))
    logits, half = (MODEL.network.image(network.to_input([image], size)) for size in (128, 64))
    wanted = logits + F.interpolate(correction(logits, half, 0.5), logits.shape[2:], mode="bilinear")
    assert torch.equal(network.logits([image]), wanted)
    assert not torch.equal(wanted, logits)


@pytest.mark.parametrize("mode", ["tfc", "reuse"])
@pytest.mark.parametrize("latency", ["low", "normal"])
def test_a_still_picture_has_the_labels_of_the_image_network(mode, latency):
    image = moving_images(1)[0]
    options = {"half_size_share": 0.5, "size": 128, "sides": "one"}
    (wanted,) = IntervalNetwork(MODEL, checked_options(MODEL, mode="image", **options)).run([image])
    network = IntervalNetwork(MODEL, checked_options(MODEL, mode=mode, latency=latency, **options))
    for result in network.run([image] * 4) if latency == "normal" else network.stream([image] * 4):
        assert (result.labels == wanted.labels).all()


@pytest.mark.parametrize("correlation", CORRELATIONS)
@torch.inference_mode()
def test_what_is_added_moves_along_and_stays_at_updated_points(correlation):
    """Sparse attention replaces logits at points; what half the size adds is added there, too."""
    images = moving_images(2, (64, 96))
    network = IntervalNetwork(MODEL, checked_options(MODEL, size=128))
    first, second = (network.to_input([image]) for image in images)
    _, memory = MODEL.network.keyframe(first)
    added = torch.randn(memory.logits.shape)
    options = InferenceOptions(threshold=2.0, correlation=correlation)  # above every similarity
    plain = MODEL.network.non_keyframes(second, memory, options)
    assert plain.updated_fraction.item() == 1
    assert (plain.shift is not None) == (correlation == "aligned")
    found = MODEL.network.non_keyframes(second, memory.with_added(added), options)
    moved = move(added, None if plain.shift is None else plain.shift.rows, 1)
    assert torch.allclose(found.logits, plain.logits + moved, atol=1e-5)
