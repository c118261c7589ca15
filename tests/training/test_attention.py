"""Stage ``attention``: points, loss, and what is trained."""

from __future__ import annotations

import math

import pytest
import torch

from tests.helpers.tiny_model import build_tiny_network, moving_clip
from tests.helpers.tiny_training import mean_of
from tfcseg.model.options import InferenceOptions
from tfcseg.training import objective
from tfcseg.training.objective import attention_losses, divergence, draw_points

CORRELATIONS = ("paper", "aligned")


def clips():
    """(2, 3, 3, 64, 64): two clips of three frames in motion."""
    return torch.stack([moving_clip(3, (64, 64), seed=seed) for seed in (5, 6)])


def distillation(network, images, correlation):
    return attention_losses(network, images, torch.empty(0), correlation)["repair"]


def frozen_network():
    """A network whose attention alone is trained, and does nothing yet."""
    network = build_tiny_network().requires_grad_(False)
    network.update.requires_grad_(True)
    for last in (network.update.attention.output, network.update.ffn_out):
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
    return network


@pytest.fixture
def everywhere(monkeypatch):
    """Draw all points, so that nothing is left to chance."""
    monkeypatch.setattr(objective, "LEAST_SIMILAR", 1.1)


def test_divergence_by_hand():
    found = divergence(torch.zeros(2, 2), torch.tensor([[1 / 4, 3 / 4], [1 / 2, 1 / 2]]).log())
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.weight.item() == 2


def test_few_points_are_all_drawn():
    w = torch.ones(2, 4, 8)
    w[0, 1, 7] = w[1, 3, 0] = 0.5
    points = draw_points(w, torch.zeros(2, 4, 8, dtype=torch.bool))
    assert [each.tolist() for each in points] == [[0, 1], [1, 3], [7, 0]]


def test_wrong_points_are_drawn_more_often():
    torch.manual_seed(0)
    w = torch.full((1, 100, 200), 0.5)
    w[:, 50:] = 1.0
    is_wrong = torch.zeros(1, 100, 200, dtype=torch.bool)
    is_wrong[:, :, :100] = True
    points = draw_points(w, is_wrong)
    assert len(points.y) == len(set(zip(points.y.tolist(), points.x.tolist(), strict=True))) == objective.POINTS
    assert points.y.max() < 50
    share = (points.x < 100).float().mean().item()
    assert share == pytest.approx((1 + objective.WRONG) / (2 + objective.WRONG), abs=0.1)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_untrained_attention_is_as_far_from_the_network_as_interpolation(monkeypatch, correlation):
    monkeypatch.setattr(objective, "POINTS", 16 * 16)
    network, images = frozen_network(), clips()
    with torch.no_grad():
        found = distillation(network, images, correlation)
        _, memory = network.keyframe(images[:, 0])
        options = InferenceOptions(correlation=correlation, threshold=-2.0)
        plain = network.non_keyframes(images[:, 1:].flatten(0, 1), memory, options).logits
        own = network.image(images[:, 1:].flatten(0, 1))
    expected = divergence(*(x.permute(0, 2, 3, 1).flatten(0, 2) for x in (plain, own)))
    assert mean_of(expected) > 0.01
    assert mean_of(found).item() == pytest.approx(mean_of(expected).item(), rel=1e-4)


@pytest.mark.usefixtures("everywhere")
def test_attention_learns_what_the_network_says_and_nothing_else_changes():
    network, images = frozen_network(), clips()
    before = network.image(images[:, 1])
    optimizer = torch.optim.Adam(network.update.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        torch.manual_seed(step)
        loss = mean_of(distillation(network, images, CORRELATIONS[step % 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])
    assert all(parameter.grad is not None for parameter in network.update.parameters())
    assert torch.equal(network.image(images[:, 1]), before)


def test_still_pictures_teach_nothing():
    images = clips()[:, :1].repeat(1, 3, 1, 1, 1)
    found = distillation(frozen_network(), images, "paper")
    assert mean_of(found).item() == 0
    assert found.weight.item() == 0
