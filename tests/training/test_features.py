"""Feature distillation: what the student's levels are compared with, and that training moves them there."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_model import BACKBONES, build_tiny_model, build_tiny_network, moving_clip, tiny_card
from tests.helpers.tiny_training import build_trainer, run, step_records
from tests.training.test_training import differing, interrupt_at
from tfcseg.errors import WeightsError
from tfcseg.training.losses import LEVELS, FeatureDistillation
from tfcseg.training.objective import image_losses, normalise
from tfcseg.weights.loading import Preprocessing

LITE, MIT = BACKBONES


def levels_of(network, images):
    low = network.backbone.encode_low(images)
    return (*low, *network.backbone.encode_high(low[1]))


def distillation(student, preprocessing=None):
    return FeatureDistillation(
        build_tiny_model(LITE, fold=False), student.backbone.channels, preprocessing or tiny_card(LITE).preprocessing
    )


@torch.no_grad()
def test_the_right_map_costs_nothing_and_none_costs_one():
    """Standardised channels have a mean square of 1: predicting zeros costs 1, the standardisation itself 0."""
    network = build_tiny_network(LITE)
    images = moving_clip(3, (64, 64))
    levels = levels_of(network, images)
    features = distillation(network)
    for linear, level in zip(features.maps, LEVELS, strict=True):
        deviation, mean = torch.std_mean(levels[level], dim=(0, 2, 3))
        linear.weight.copy_(torch.diag(1 / (deviation + 1e-3))[:, :, None, None])
        linear.bias.copy_(-mean / (deviation + 1e-3))
    assert features(images, levels).mean().item() == pytest.approx(0, abs=1e-6)
    for linear in features.maps:
        linear.weight.zero_()
        linear.bias.zero_()
    cost = features(images, levels)
    assert cost.weight.item() == 3
    assert cost.mean().item() == pytest.approx(1, abs=0.1)


@torch.no_grad()
def test_the_teacher_sees_the_picture_in_its_own_colours():
    """Whatever the student's normalisation, the same picture gives the same targets."""
    network = build_tiny_network(LITE)
    own = tiny_card(LITE).preprocessing
    other = Preprocessing(own.size, (10.0, 100.0, 200.0), (30.0, 90.0, 20.0))
    pixels = 60 * moving_clip(2, (64, 64)) + 120
    costs = []
    for preprocessing in (own, other):
        torch.manual_seed(3)
        levels = levels_of(
            network, (pixels - torch.tensor(own.mean).view(3, 1, 1)) / torch.tensor(own.std).view(3, 1, 1)
        )
        costs.append(distillation(network, preprocessing)(normalise(pixels, preprocessing), levels).mean().item())
    assert costs[0] == pytest.approx(costs[1], rel=1e-3)


def test_the_labels_loss_stays_what_it_is():
    network = build_tiny_network(MIT)
    images = moving_clip(2, (64, 64))[:, None]
    labels = torch.randint(0, 50, (2, 1, 5, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    alone = image_losses(network, images, labels, "paper")
    both = image_losses(network, images, labels, "paper", features=distillation(network))
    assert alone.keys() == {"seg"}
    assert both["seg"].mean().item() == pytest.approx(alone["seg"].mean().item(), rel=1e-5)
    both["features"].total.backward()
    assert network.backbone.stages[0].embedding.weight.grad.abs().sum() > 0, "the backbone learns"


def test_training_brings_the_features_closer_and_leaves_the_teacher_alone(tmp_path):
    trainer, records = build_trainer(
        tmp_path, steps=30, backbone=MIT, feature_teacher=LITE, features_from="tiny", drops=False, learning_rate=2e-3
    )
    before = {name: tensor.clone() for name, tensor in trainer.features.backbone.state_dict().items()}
    run(trainer)
    costs = [record["features"] for record in step_records(records)]
    assert sum(costs[-5:]) < 0.8 * sum(costs[:5])
    assert differing(before, trainer.features.backbone.state_dict()) == []


def test_a_resumed_run_goes_on_with_its_maps(tmp_path):
    numbers = {"steps": 4, "backbone": MIT, "feature_teacher": LITE, "features_from": "tiny"}
    whole, _ = build_trainer(tmp_path / "whole", **numbers)
    run(whole)
    stopped, _ = build_trainer(tmp_path / "parts", on_step=interrupt_at(2), **numbers)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    resumed, _ = build_trainer(tmp_path / "parts", network_seed=1, **numbers)
    run(resumed)
    assert differing(whole.network.state_dict(), resumed.network.state_dict()) == []
    assert differing(whole.features.maps.state_dict(), resumed.features.maps.state_dict()) == []


def test_a_run_with_other_features_is_not_gone_on_with(tmp_path):
    first, _ = build_trainer(tmp_path, steps=1, backbone=MIT, feature_teacher=LITE, features_from="tiny")
    run(first)
    plain, _ = build_trainer(tmp_path, steps=1, backbone=MIT)
    with pytest.raises(WeightsError, match="made with other options"):
        run(plain)
