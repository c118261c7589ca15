"""Rare class sampling: photos that show what few others do are drawn more often."""

import cv2
import numpy as np
import pytest

from tfcseg.labels.label_sets import SCENES
from tfcseg.training.datasets import StillSource, Weighted
from tfcseg.training.distilled import class_shares, donor_weights, rarity_weights
from tfcseg.training.labelling import Taught


def still_of(folder, name, counts):
    """A still whose labels are one class per row of 4×4 blocks: ``counts`` rows of each."""
    labels = np.zeros((4 * sum(counts), 8, len(counts)), np.uint8)
    row = 0
    for index, count in enumerate(counts):
        labels[row : row + 4 * count, :, index] = 255
        row += 4 * count
    np.save(folder / f"{name}.npy", labels)
    return Taught(folder / f"{name}.png", folder / f"{name}.npy")


def test_shares_are_those_of_the_labels(tmp_path):
    stills = [still_of(tmp_path, "a", [3, 1, 0]), still_of(tmp_path, "b", [0, 2, 2])]
    np.testing.assert_allclose(class_shares(stills), [[0.75, 0.25, 0], [0, 0.5, 0.5]])


def test_labels_without_a_class_have_no_shares(tmp_path):
    np.save(tmp_path / "none.npy", np.zeros((8, 8, 3), np.uint8))
    assert not class_shares([Taught(tmp_path / "none.png", tmp_path / "none.npy")]).any()


def test_weights_by_hand():
    """Class 0 in three of four photos, class 1 in the fourth alone: each class has half of the draws."""
    shares = np.array([[1.0, 0.0, 0.0]] * 3 + [[0.0, 1.0, 0.0]])
    np.testing.assert_allclose(rarity_weights(shares), [2 / 3, 2 / 3, 2 / 3, 2.0])


def test_weights_keep_the_mean_and_forget_nobody():
    shares = np.random.default_rng(0).dirichlet(np.linspace(0.05, 3, 9), size=50)
    weights = rarity_weights(shares)
    assert weights.mean() == pytest.approx(1.0)
    assert (weights > 0).all()
    assert weights[shares[:, 0].argmax()] > weights[shares[:, -1].argmax()]


def test_without_any_label_all_are_alike():
    np.testing.assert_array_equal(rarity_weights(np.zeros((3, 5))), np.ones(3))


def test_a_source_draws_by_weight(tmp_path):
    """A weight of 0 is never drawn, three quarters are three quarters; the labels tell which photo it was."""
    stills = [still_of(tmp_path, str(index), np.eye(3, dtype=int)[index] * 16) for index in range(3)]
    for still in stills:
        cv2.imwrite(str(still.source), np.zeros((64, 64, 3), np.uint8))
    source = StillSource(Weighted(stills, np.array([0.0, 3.0, 1.0])), 32)
    samples = [source.draw(np.random.default_rng(seed)).labels for seed in range(200)]
    drawn = [int(labels.sum((0, 2, 3)).argmax()) for labels in samples]
    assert set(drawn) == {1, 2}
    assert 0.65 < drawn.count(1) / len(drawn) < 0.85


def test_sources_of_things_to_paste_show_some_of_them_and_not_only_them():
    person = SCENES.index("person")
    shares = np.zeros((4, len(SCENES)))
    shares[:, person] = 0, 0.01, 0.1, 0.5
    np.testing.assert_array_equal(donor_weights(shares, person), [0, 0, 0.1, 0])
    assert not donor_weights(np.ones((2, 31)), person).any(), "other label sets have nothing pasted"
