"""Losses against their formulas, written out position by position."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.helpers.tiny_training import mean_of
from tfcseg.training.objective import WeightedSum, grid_classes, hard_cross_entropy, similarity_loss, soft_cross_entropy


def log_shares(logits):
    """Log softmax of a list of numbers."""
    total = math.log(sum(math.exp(value) for value in logits))
    return [value - total for value in logits]


# ----------------------------------------------------------------------------------------------------------soft labels


def test_soft_cross_entropy_by_hand():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]]).view(2, 3, 1, 1)
    soft = torch.tensor([[204, 51, 0], [0, 255, 0]], dtype=torch.uint8).view(2, 3, 1, 1)
    found = soft_cross_entropy(logits, soft)
    first, second = log_shares([2.0, -1.0, 0.5]), log_shares([0.0, 0.0, 0.0])
    expected = 0.8 * -(0.8 * first[0] + 0.2 * first[1]) + 1.0 * -second[1]
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.weight.item() == pytest.approx(1.8)
    assert mean_of(found).item() == pytest.approx(expected / 1.8, rel=1e-5)


def test_positions_without_soft_label_count_nothing():
    logits = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    soft = torch.zeros(1, 4, 2, 2, dtype=torch.uint8)
    soft[0, 2, 0, 0] = 255
    found = soft_cross_entropy(logits, soft)
    assert found.weight.item() == 1
    assert found.total.item() == pytest.approx(-log_shares(logits[0, :, 0, 0].tolist())[2], rel=1e-5)
    found.total.backward()
    assert logits.grad[0, :, 0, 0].abs().sum() > 0
    assert not logits.grad[..., 1].any()
    assert not logits.grad[..., 1, 0].any()


def test_without_any_label_the_loss_is_zero_and_not_nan():
    nothing = soft_cross_entropy(torch.randn(1, 4, 2, 2), torch.zeros(1, 4, 2, 2, dtype=torch.uint8))
    assert mean_of(nothing).item() == 0


def test_soft_loss_is_least_where_the_student_agrees():
    soft = torch.tensor([178, 51, 26], dtype=torch.uint8).view(1, 3, 1, 1)
    agreeing = (soft.float() / 255).log().requires_grad_()
    soft_cross_entropy(agreeing, soft).total.backward()
    assert agreeing.grad.abs().max() < 1e-6


# ----------------------------------------------------------------------------------------------------------hard labels


def test_hard_cross_entropy_by_hand():
    logits = torch.tensor([[1.0, 3.0], [-2.0, 0.0]]).view(1, 2, 1, 2)  # class 0: 1, 3; class 1: -2, 0
    labels = torch.tensor([[[1, 0]]])
    found = hard_cross_entropy(logits, labels)
    expected = -log_shares([1.0, -2.0])[1] - log_shares([3.0, 0.0])[0]
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.weight.item() == 2


def test_ignored_pixels_count_nothing():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.full((2, 4, 4), 255)
    assert mean_of(hard_cross_entropy(logits, labels)).item() == 0
    labels[0, 1, 2] = 2
    one = hard_cross_entropy(logits, labels)
    assert one.weight.item() == 1
    assert one.total.item() == pytest.approx(-log_shares(logits[0, :, 1, 2].tolist())[2], rel=1e-5)


def test_logits_are_enlarged_to_the_labels():
    """Labels stay exact at full size: a constant map of logits costs the same at any size."""
    logits = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    found = hard_cross_entropy(logits, labels)
    assert found.weight.item() == 64
    assert mean_of(found).item() == pytest.approx(-log_shares([1.0, -1.0])[0], rel=1e-5)


# --------------------------------------------------------------------------------------------------------------- L_bce


def test_similarity_loss_by_hand():
    """Focal loss with γ = 1: (1 - p) · -log p, p being how right ŵ is."""
    w_hat = torch.tensor([[[0.9, 0.3], [0.6, 0.2]]])
    unchanged = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    weight = torch.tensor([[[1.0, 1.0], [1.0, 0.5]]])
    found = similarity_loss(w_hat, unchanged, weight)
    rights = [(0.9, 1.0), (0.3, 1.0), (0.4, 1.0), (0.8, 0.5)]
    expected = sum(share * (1 - right) * -math.log(right) for right, share in rights)
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.weight.item() == pytest.approx(3.5)


def test_similarity_loss_ignores_unknown_labels():
    w_hat = torch.tensor([[[0.5, 0.01]]], requires_grad=True)
    similarity_loss(w_hat, torch.ones(1, 1, 2), torch.tensor([[[1.0, 0.0]]])).total.backward()
    assert w_hat.grad[0, 0, 0] < 0, "more similarity where the label is unchanged"
    assert w_hat.grad[0, 0, 1] == 0


def test_similarity_loss_is_finite_at_the_ends():
    w_hat = torch.tensor([[[0.0, 1.0, 0.0, 1.0]]])
    unchanged = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    found = similarity_loss(w_hat, unchanged, torch.ones(1, 1, 4))
    assert torch.isfinite(found.total)
    assert found.total.item() == pytest.approx(2 * (1 - 1e-4) * -math.log(1e-4), rel=1e-4)


def test_means_of_halves_weighted_are_the_mean():
    """(Σ, weight) pairs add up: what several processes rely on."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(4, 5, 3, 3, generator=generator)
    soft = torch.randint(0, 256, (4, 5, 3, 3), generator=generator, dtype=torch.uint8)
    halves = [soft_cross_entropy(logits[part], soft[part]) for part in (slice(0, 1), slice(1, 4))]
    together = WeightedSum(halves[0].total + halves[1].total, halves[0].weight + halves[1].weight)
    assert mean_of(together).item() == pytest.approx(mean_of(soft_cross_entropy(logits, soft)).item(), rel=1e-5)


# ------------------------------------------------------------------------------------------------- labels at the grid


def test_grid_classes_of_soft_labels_are_the_largest():
    soft = torch.zeros(1, 1, 3, 2, 2, dtype=torch.uint8)
    soft[0, 0, :, 0, 0] = torch.tensor([10, 200, 45], dtype=torch.uint8)
    classes, known = grid_classes(soft, (2, 2))
    assert classes[0, 0, 0, 0] == 1
    assert known[0, 0, 0, 0].item() == pytest.approx(200 / 255)
    assert known[0, 0, 1, 1] == 0


def test_grid_classes_of_hard_labels_are_the_cells_centres():
    labels = np.full((1, 1, 8, 8), 255, np.uint8)
    labels[0, 0, 0:4, 0:4] = 3
    labels[0, 0, 4:8, 4:8] = np.array([[9] * 4, [9] * 4, [9, 9, 5, 9], [9] * 4])
    classes, known = grid_classes(torch.from_numpy(labels), (2, 2))
    assert classes[0, 0].tolist() == [[3, 255], [255, 5]]
    assert known[0, 0].tolist() == [[1, 0], [0, 1]]
