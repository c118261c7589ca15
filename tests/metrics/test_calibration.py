"""Expected calibration error and temperature, on labels whose answer is known."""

import numpy as np
import pytest

from tfcseg.research.calibration import CalibrationMeter


def logits_of(*probabilities):
    """(N, 2) logits of labels that are sure by so much."""
    sure = np.array(probabilities)
    return np.log(np.stack([sure, 1 - sure], axis=1)).astype(np.float32)


def test_errors_counted_by_hand():
    meter = CalibrationMeter(np.array([1.0]))
    meter.update(logits_of(0.9, 0.9, 0.9, 0.9), np.array([True, True, False, False]))
    meter.update(logits_of(0.6, 0.6), np.array([True, True]))
    assert (meter.count, meter.right) == (6, 4)
    assert meter.errors == pytest.approx([(4 * 0.4 + 2 * 0.4) / 6])  # 0.9 against a half, 0.6 against all


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.0])
def test_the_temperature_that_made_the_labels_is_found(true_temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5)).astype(np.float32)
    probabilities = np.exp(logits / true_temperature)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    is_right = rng.random(len(logits)) < probabilities.max(axis=1)
    temperatures = np.geomspace(0.25, 4, 33)
    meter = CalibrationMeter(temperatures)
    for part in np.array_split(np.arange(len(logits)), 3):
        meter.update(logits[part], is_right[part])
    assert temperatures[meter.best] == pytest.approx(true_temperature, rel=0.1)
    assert meter.errors[meter.best] < 0.02
    assert meter.errors[[0, -1]].min() > 0.05


def test_nothing_is_no_error():
    meter = CalibrationMeter(np.array([1.0]))
    meter.update(np.zeros((0, 3), np.float32), np.zeros(0, np.bool_))
    assert meter.count == 0
    assert meter.errors == 0
