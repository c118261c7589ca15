"""Combining frames with those before and after them, by hand and as invariants."""

import pytest
import torch

from tests.helpers.tiny_model import build_tiny_network, moving_clip
from tfcseg.model.alignment import surroundings
from tfcseg.model.config import EVIDENCE
from tfcseg.model.evidence import (
    ENOUGH_EVIDENCE,
    HALVING_DIFFERENCE,
    Correspondence,
    Side,
    WeightedLogits,
    changed_share,
    combine,
    compare,
    evidence,
    margin,
    mix,
)


def logits_of(*logits, weight=1.0):
    """Two classes on a grid of one row."""
    values, nothing = torch.tensor(logits).view(1, 1, 1, -1), torch.zeros(1, 1, 1, 1)
    return WeightedLogits(torch.cat([values, -values], 1), torch.full_like(values, weight), nothing, nothing)


def alike(*values, rows=None):
    e = torch.tensor(values).view(1, 1, 1, -1)
    return Correspondence(rows, e, e)


def test_margin_by_hand():
    half = torch.tensor([0.25, 0.25, 0.5]).log()
    found = margin(torch.stack([torch.tensor([0.0, 0.0, 0.0]), half]).T.reshape(1, 3, 1, 2))
    torch.testing.assert_close(found.flatten(), torch.tensor([1e-3, 0.25]))  # no margin counts a little


def test_evidence_by_hand():
    w = torch.tensor([-1.0, 0.2, 0.7, 0.8, 1.0]).view(1, 1, 1, 5)
    torch.testing.assert_close(evidence(w, (0.0, 0.2, 1.0)).flatten(), torch.tensor([0, 0.08, 0.52, 0.68, 1.0]))
    assert changed_share(w).tolist() == [pytest.approx(0.4)]
    fewer = torch.tensor([-1.0, 0.2, 0.5, 0.59, 1.0]).view(1, 1, 1, 5)
    assert evidence(fewer, (0.0, 0.2, 1.0)).flatten().tolist() == [0] * 5  # another scene
    both = evidence(torch.cat([w, fewer]), EVIDENCE)
    torch.testing.assert_close(both.flatten(), torch.tensor([0, 0, 0.4, 0.6, 1.0, 0, 0, 0, 0, 0]))


def test_keyframes_combine_as_a_weighted_mean():
    own, other = logits_of(1.0, 1.0, 1.0, weight=2.0), logits_of(-3.0, -3.0, -3.0, weight=4.0)
    found = combine(own, other, alike(1.0, 0.5, 0.0))
    # e · min(4, MOST_WEIGHT) = 2, 1, 0 beside the own 2.
    torch.testing.assert_close(found.logits[0, 0, 0], torch.tensor([-1.0, -1 / 3, 1.0]))
    torch.testing.assert_close(found.weight.flatten(), torch.tensor([4.0, 3.0, 2.0]))
    moved = combine(own, logits_of(4.0, 6.0, 7.0), alike(1.0, 1.0, 1.0, rows=torch.tensor([2, 2, 0])))
    torch.testing.assert_close(moved.logits[0, 0, 0], torch.tensor([3.0, 3.0, 2.0]))


def test_uncertain_keyframes_have_little_influence():
    sure, unsure = logits_of(1.0, weight=1.0), logits_of(-9.0, weight=0.001)
    assert combine(sure, unsure, alike(1.0)).logits[0, 0].item() > 0.98
    assert combine(unsure, sure, alike(1.0)).logits[0, 0].item() > 0.98


def mixed(mixture):
    return mixture.weighted_mean(0, [side.keyframe.logits[0, :1].reshape(-1, 1) for side in mixture.sides])[:, 0]


def test_frames_take_the_keyframe_that_a_position_resembles():
    before, after = logits_of(4.0, 4.0, 4.0), logits_of(-4.0, -4.0, -4.0)
    sides = [
        Side(before, alike(1.0, 0.0, 0.5), torch.tensor([0.5])),
        Side(after, alike(0.0, 1.0, 0.5), torch.tensor([0.5])),
    ]
    found = mix(sides)
    torch.testing.assert_close(mixed(found), torch.tensor([4.0, -4.0, 0.0]), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.similarity[0, 0], torch.tensor([1.0, 1.0, 0.5]))
    assert found.own_fraction.tolist() == [0]


def test_labels_change_in_even_steps_from_keyframe_to_keyframe():
    near = torch.tensor([0.75, 0.5, 0.25])
    still = Correspondence(None, *[torch.ones(3, 1, 1, 1)] * 2)
    # The later keyframe has gathered more weight, since it is later.
    found = mix([Side(logits_of(4.0, weight=1.0), still, near), Side(logits_of(0.0, weight=2.0), still, 1 - near)])
    values = [side.keyframe.logits[0, :1].reshape(-1, 1) for side in found.sides]
    steps = torch.cat([found.weighted_mean(row, values).flatten() for row in range(3)])
    torch.testing.assert_close(steps, torch.tensor([3.0, 2.0, 1.0]), rtol=0, atol=1e-4)


def test_another_scene_is_not_taken_where_there_is_no_evidence():
    sides = [
        Side(logits_of(1.0, 1.0), alike(0.0, 0.0), torch.tensor([0.5])),
        Side(logits_of(2.0, 2.0), alike(0.0, 1.0), torch.tensor([0.5])),
    ]
    torch.testing.assert_close(mixed(mix(sides)), torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(mixed(mix(sides[::-1])), torch.tensor([2.0, 2.0]))


def test_frames_take_from_where_things_were():
    before = logits_of(1.0, 2.0, 3.0)
    after = logits_of(10.0, 20.0, 30.0)
    near = torch.tensor([1.0, 0.5])
    like = Correspondence(torch.tensor([0, 1, 2, 2, 2, 0]), *[torch.ones(2, 1, 1, 3)] * 2)
    still = Correspondence(None, *[torch.ones(2, 1, 1, 3)] * 2)
    found = mix([Side(before, like, near), Side(after, still, 1 - near)])
    values = [side.keyframe.logits[0, :1].reshape(-1, 1) for side in found.sides]
    near_before, amid = (found.weighted_mean(row, values).flatten() for row in (0, 1))
    torch.testing.assert_close(near_before, torch.tensor([1.0, 2.0, 3.0]), rtol=1e-4, atol=0)
    torch.testing.assert_close(amid, torch.tensor([6.5, 11.5, 15.5]))
    assert torch.equal(found.weighted_mean(1, values, torch.tensor([2, 0])).flatten(), amid[[2, 0]])


def test_frames_are_computed_where_they_resemble_neither():
    like = alike(0.0, 0.25 * ENOUGH_EVIDENCE, ENOUGH_EVIDENCE, 1.0)
    found = mix([Side(logits_of(-4.0, -4.0, -4.0, -4.0), like, torch.tensor([1.0]))])
    torch.testing.assert_close(found.own[0, 0, 0], torch.tensor([1, 0.75, 0, 0]))
    assert found.own_fraction.tolist() == [0.5]
    few = alike(*[1.0] * 99, 0.0)
    assert mix([Side(logits_of(*[1.0] * 100), few, torch.tensor([1.0]))]).own_fraction.tolist() == [0]


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mit_b0"])
@torch.inference_mode()
def test_frames_computed_from_low_features_are_the_image_network_bit_for_bit(backbone):
    network = build_tiny_network(backbone).fold()
    images = moving_clip(2)
    assert torch.equal(network.logits_from(network.low_features(images)), network.image(images))


@torch.inference_mode()
def test_a_still_picture_stays_bit_for_bit():
    network = build_tiny_network().fold()
    images = moving_clip(1)
    logits = network.image(images)
    low = network.low_features(images).at_size((16, 24))
    found = WeightedLogits.of(logits, low, low)
    like = compare(found.match, found.match, (16, 24), EVIDENCE).placed_by_pixels(
        surroundings(found.picture), found.picture
    )
    assert like.rows is None
    combined = combine(found, combine(found, found, like), like)
    assert torch.equal(combined.logits, found.logits)
    seen = network.low_features(moving_clip(1, (32, 64)))
    still = compare(seen.match, seen.match, (16, 24), EVIDENCE)
    near = torch.tensor([0.5])
    found = mix([Side(combined, still, near), Side(combined, still, 1 - near)])
    assert found.own_fraction.tolist() == [0]
    cells = combined.logits.permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.equal(found.weighted_mean(0, [cells, cells]), cells)


def test_matches_are_places_on_the_grid_of_the_logits():
    """Features that move by two cells of stride 8 at half the size: by eight of the logits'."""
    scene = torch.randn(1, 16, 8, 18, generator=torch.Generator().manual_seed(0))
    scene = torch.nn.functional.normalize(scene, dim=1)
    like = compare(scene[..., :16], scene[..., 2:], (32, 64), EVIDENCE)
    x = like.rows.view(32, 64) % 64 - torch.arange(64)
    assert (x[:, 4:48] == 8).float().mean() > 0.9
    assert x.add(torch.arange(64)).amax() <= 63
    assert like.similarity[..., 4:48].mean() > 0.9
    assert (like.evidence > 0).float().mean() > 0.7
    unlike = compare(scene[..., :16], -scene[..., :16], (32, 64), EVIDENCE)
    assert unlike.evidence.max() == 0


def test_other_colours_are_less_evidence():
    grey = torch.zeros(1, 3, 4, 6)
    found = Correspondence(None, torch.ones(1, 1, 4, 6), torch.full((1, 1, 4, 6), 0.8))
    for difference, left in ((0, 0.8), (HALVING_DIFFERENCE, 0.4), (-2 * HALVING_DIFFERENCE, 0.16)):
        placed = found.placed_by_pixels(surroundings(grey), grey + difference)
        torch.testing.assert_close(placed.evidence[..., 1:-1, 1:-1], torch.full((1, 1, 2, 4), left))
        assert placed.rows is None
