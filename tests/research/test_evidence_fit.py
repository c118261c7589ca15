"""``tfcseg research fit-evidence`` as a user calls it, and the curve by hand."""

import json
from itertools import pairwise

import numpy as np
import pytest

from tests.helpers.command_line import call
from tests.helpers.media import write_clip
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.research.evidence_fit import _curve
from tfcseg.weights.loading import read_card
from tfcseg.weights.tensor_file import read_tensor_file


def test_the_curve_goes_into_the_card_and_no_tensor_changes(tmp_path):
    weights = write_tiny_model(tmp_path / "tiny.safetensors")
    clip, short = write_clip(tmp_path / "clip.mp4", 14), write_clip(tmp_path / "short.mp4", 3)
    done = call("research", "fit-evidence", clip, "-m", weights, "-o", tmp_path / "out.safetensors", "--json", "-q")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["clips"], found["pairs"]) == (1, 5)
    curve = found["curve"]
    assert len(curve) == 11
    assert all(0 <= low <= high <= 1 for low, high in pairwise(curve))
    assert read_card(tmp_path / "out.safetensors").config.evidence == tuple(curve)
    before, after = (read_tensor_file(path).tensors for path in (weights, tmp_path / "out.safetensors"))
    assert all((before[name] == after[name]).all() for name in before)
    failed = call("research", "fit-evidence", short, "-m", weights, "-q")
    assert failed.returncode == 1
    assert "no clip has more than 4 frames" in failed.stderr


def test_the_curve_is_agreement_beyond_chance():
    whole = np.full(11, 100.0)
    share, chance = np.linspace(0.5, 1.0, 11), np.full(11, 0.5)
    curve = _curve(np.stack([share * whole, whole]), np.stack([chance * whole, whole]))
    assert curve[1:-1] == pytest.approx(tuple(np.linspace(0.1, 0.9, 9)), abs=0.02)
    falling = _curve(np.stack([share[::-1] * whole, whole]), np.stack([chance * whole, whole]))
    assert max(falling) - min(falling) < 0.01  # pooled to their mean
    assert falling[5] == pytest.approx(0.5, abs=0.1)
