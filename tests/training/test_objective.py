"""Eq. 12 on clips: which labels, frames and positions a batch's losses are made of."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_model import NAMES, build_tiny_network, moving_clip
from tests.helpers.tiny_training import mean_of
from tfcseg.model.options import InferenceOptions
from tfcseg.training.objective import clip_losses, hard_cross_entropy, image_losses, normalise, soft_cross_entropy
from tfcseg.weights.model_card import Preprocessing

SIDE, GRID = 64, 16


@pytest.fixture(scope="module")
def network():
    return build_tiny_network()


def still_images(clips=2, frames=3):
    """(B, T, 3, SIDE, SIDE): every clip one picture, repeated."""
    pictures = torch.cat([moving_clip(1, (SIDE, SIDE), seed=seed) for seed in range(clips)])
    return pictures[:, None].repeat(1, frames, 1, 1, 1)


def soft_labels(classes):
    """(B, T, K, GRID, GRID) certain labels of a map (B, T, GRID, GRID)."""
    one_hot = torch.nn.functional.one_hot(classes, len(NAMES)).permute(0, 1, 4, 2, 3)
    return (one_hot * 255).to(torch.uint8)


def random_classes(frames=3):
    return torch.randint(len(NAMES), (2, frames, GRID, GRID), generator=torch.Generator().manual_seed(4))


def losses_of(network, images, labels):
    with torch.no_grad():
        return clip_losses(network, images, labels, "paper")


# --------------------------------------------------------------------------------------------------------------- L_bce


def test_nothing_changed_and_everything_alike_costs_nothing(network):
    labels = soft_labels(random_classes(1).repeat(1, 3, 1, 1))
    bce = losses_of(network, still_images(), labels)["bce"]
    assert mean_of(bce).item() == pytest.approx(0.0, abs=1e-4)
    assert bce.weight.item() == 2 * 2 * GRID * GRID, "every position of the frames after the keyframe"


def test_changes_that_look_alike_cost_the_most(network):
    classes = random_classes(1).repeat(1, 3, 1, 1)
    classes[:, 2] = (classes[:, 2] + 1) % len(NAMES)
    bce = losses_of(network, still_images(), soft_labels(classes))["bce"]
    # Half of the positions, at the largest loss of a float clamped to 1e-4.
    assert mean_of(bce).item() == pytest.approx(0.5 * 9.21, rel=0.01)


def test_hard_labels_say_the_same(network):
    classes = random_classes(1).repeat(1, 3, 1, 1)
    classes[1, 1, :4] = (classes[1, 1, :4] + 1) % len(NAMES)
    hard = classes.repeat_interleave(4, -1).repeat_interleave(4, -2).to(torch.uint8)
    found, expected = losses_of(network, still_images(), hard), losses_of(network, still_images(), soft_labels(classes))
    assert found["bce"].total.item() == pytest.approx(expected["bce"].total.item(), rel=1e-5)
    assert found["bce"].weight.item() == expected["bce"].weight.item()


@pytest.mark.parametrize("frame", [0, 1])
def test_positions_of_unknown_label_teach_no_similarity(network, frame):
    """Unknown in the keyframe, a position is unknown for all frames; in another frame, for that one."""
    labels = soft_labels(random_classes(1).repeat(1, 3, 1, 1))
    labels[0, frame, :, :8] = 0
    bce = losses_of(network, still_images(), labels)["bce"]
    unknown = 8 * GRID * (2 if frame == 0 else 1)
    assert bce.weight.item() == 2 * 2 * GRID * GRID - unknown


# --------------------------------------------------------------------------------------------------------------- L_seg


def moving_images():
    return torch.stack([moving_clip(3, (SIDE, SIDE), seed=seed) for seed in (5, 6)])


@pytest.mark.parametrize("correlation", ["paper", "aligned"])
def test_keyframes_and_the_frames_after_them_count_alike(network, correlation):
    images, classes = moving_images(), random_classes()
    labels = soft_labels(classes)
    with torch.no_grad():
        found = clip_losses(network, images, labels, correlation)["seg"]
        key, memory = network.keyframe(images[:, 0])
        rest = network.non_keyframes(
            images[:, 1:].flatten(0, 1), memory, InferenceOptions(correlation=correlation)
        ).logits
    logits = torch.cat([key[:, None], rest.unflatten(0, (2, 2))], dim=1).flatten(0, 1)
    expected = soft_cross_entropy(logits, labels.flatten(0, 1))
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
    assert found.weight.item() == expected.weight.item() == 2 * 3 * GRID * GRID


def test_the_image_stage_takes_every_frame_by_itself(network):
    images, classes = moving_images(), random_classes()
    hard = classes.repeat_interleave(4, -1).repeat_interleave(4, -2).to(torch.uint8)
    with torch.no_grad():
        found = image_losses(network, images, hard, "paper")
        expected = hard_cross_entropy(network.image(images.flatten(0, 1)), hard.flatten(0, 1).long())
    assert found.keys() == {"seg"}
    assert mean_of(found["seg"]).item() == pytest.approx(mean_of(expected).item(), rel=1e-5)


def test_images_are_normalised_as_the_card_says():
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    normalised = normalise(image, Preprocessing(64, (10.0, 10.0, 10.0), (1.0, 2.0, 4.0)))
    assert normalised.dtype == torch.float32
    assert normalised[0, :, 0, 0].tolist() == [0.0, 5.0, 5.0]
