"""The evidence curve, by hand and on a clip."""

from itertools import pairwise

import numpy as np
import pytest

from tests.helpers.media import write_clip
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.adaptation.evidence_fit import _curve, fit_evidence
from tfcseg.adaptation.own_labels import Part
from tfcseg.errors import DataError
from tfcseg.weights.loading import load_model


def test_the_curve_of_a_clip_rises(tmp_path):
    model = load_model(str(write_tiny_model(tmp_path / "tiny.safetensors")), device="cpu")
    clip = write_clip(tmp_path / "clip.mp4", 14)
    curve = fit_evidence(model, [Part(clip, 0, 14, 10.0)], size=32, on_progress=lambda done, total: None)
    assert len(curve) == 11
    assert all(0 <= low <= high <= 1 for low, high in pairwise(curve))
    with pytest.raises(DataError, match="no clip has more than 4 frames"):
        fit_evidence(model, [Part(clip, 0, 4, 10.0)], size=32, on_progress=lambda done, total: None)


def test_the_curve_is_agreement_beyond_chance():
    whole = np.full(11, 100.0)
    share, chance = np.linspace(0.5, 1.0, 11), np.full(11, 0.5)
    curve = _curve(np.stack([share * whole, whole]), np.stack([chance * whole, whole]))
    assert curve[1:-1] == pytest.approx(tuple(np.linspace(0.1, 0.9, 9)), abs=0.02)
    falling = _curve(np.stack([share[::-1] * whole, whole]), np.stack([chance * whole, whole]))
    assert max(falling) - min(falling) < 0.01  # pooled to their mean
    assert falling[5] == pytest.approx(0.5, abs=0.1)
