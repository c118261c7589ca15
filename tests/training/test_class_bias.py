"""Biases of classes that were shown more often than they occur."""

import numpy as np
import pytest

from tfcseg.training.class_bias import LEAST, LIMIT, fit_biases


def noisy(labels, classes, rng):
    """Logits that tell the labels, but not surely."""
    logits = rng.normal(0, 1, (len(labels), classes)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 2
    return logits


def mean_iou(logits, labels):
    found = logits.argmax(axis=1)
    pairs = [((found == k) & (labels == k), (found == k) | (labels == k)) for k in np.unique(labels)]
    return np.mean([both.sum() / either.sum() for both, either in pairs])


def test_a_class_that_was_shown_too_often_is_said_less():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 20_000, p=[0.6, 0.3, 0.1]).astype(np.uint8)
    logits = noisy(labels, 3, rng)
    logits[:, 2] += 1
    biases = fit_biases(logits, labels)
    assert biases[2] < biases[:2].min() - 0.5
    assert mean_iou(logits + biases, labels) > mean_iou(logits, labels) + 0.02


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_iou_never_falls(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(6, 5000, p=rng.dirichlet(np.ones(6))).astype(np.uint8)
    logits = noisy(labels, 6, rng)
    known = np.flatnonzero(np.bincount(labels, minlength=6) >= LEAST)
    biases = fit_biases(logits, labels)
    assert np.abs(biases).max() <= LIMIT
    assert not biases[np.setdiff1d(np.arange(6), known)].any()

    def score(moved):
        found = moved.argmax(axis=1)
        return np.mean([((found == k) & (labels == k)).sum() / ((found == k) | (labels == k)).sum() for k in known])

    assert score(logits + biases) >= score(logits)


def test_classes_with_few_labels_keep_their_biases():
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert fit_biases(logits, np.zeros(50, np.uint8)).tolist() == [0, 0, 0, 0]
