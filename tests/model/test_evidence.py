"""What frames before and after say of a frame, by hand and as invariants."""

import pytest
import torch

from tests.helpers.tiny_model import build_tiny_network, moving_clip
from tfcseg.model.config import EVIDENCE
from tfcseg.model.evidence import (
    ENOUGH,
    Likeness,
    Opinion,
    Side,
    changed_share,
    compare,
    evidence,
    lean,
    mix,
    sureness,
)


def opinion(*logits, weight=1.0):
    """Two classes on a grid of one row."""
    values = torch.tensor(logits).view(1, 1, 1, -1)
    return Opinion(torch.cat([values, -values], 1), torch.full_like(values, weight), torch.zeros(1, 1, 1, 1))


def alike(*values, rows=None):
    e = torch.tensor(values).view(1, 1, 1, -1)
    return Likeness(rows, e, e)


def test_sureness_by_hand():
    half = torch.tensor([0.25, 0.25, 0.5]).log()
    found = sureness(torch.stack([torch.tensor([0.0, 0.0, 0.0]), half]).T.reshape(1, 3, 1, 2))
    torch.testing.assert_close(found.flatten(), torch.tensor([1e-3, 0.25]))  # unsure counts a little


def test_evidence_by_hand():
    w = torch.tensor([-1.0, 0.2, 0.7, 0.8, 1.0]).view(1, 1, 1, 5)
    torch.testing.assert_close(evidence(w, (0.0, 0.2, 1.0)).flatten(), torch.tensor([0, 0.08, 0.52, 0.68, 1.0]))
    assert changed_share(w).tolist() == [pytest.approx(0.4)]
    fewer = torch.tensor([-1.0, 0.2, 0.5, 0.59, 1.0]).view(1, 1, 1, 5)
    assert evidence(fewer, (0.0, 0.2, 1.0)).flatten().tolist() == [0] * 5  # another scene
    both = evidence(torch.cat([w, fewer]), EVIDENCE)
    torch.testing.assert_close(both.flatten(), torch.tensor([0, 0, 0.25, 0.5, 1.0, 0, 0, 0, 0, 0]))


def test_leaning_is_a_weighted_mean():
    own, other = opinion(1.0, 1.0, 1.0, weight=2.0), opinion(-3.0, -3.0, -3.0, weight=4.0)
    found = lean(own, other, alike(1.0, 0.5, 0.0), carry=0.5)
    # 0.5 · e · 4 = 2, 1, 0 beside the own 2.
    torch.testing.assert_close(found.logits[0, 0, 0], torch.tensor([-1.0, -1 / 3, 1.0]))
    torch.testing.assert_close(found.weight.flatten(), torch.tensor([4.0, 3.0, 2.0]))
    moved = lean(own, opinion(5.0, 6.0, 7.0), alike(1.0, 1.0, 1.0, rows=torch.tensor([2, 2, 0])), carry=2.0)
    torch.testing.assert_close(moved.logits[0, 0, 0], torch.tensor([4.0, 4.0, 3.0]))


def test_unsure_keyframes_impose_nothing():
    sure, unsure = opinion(1.0, weight=1.0), opinion(-9.0, weight=0.001)
    assert lean(sure, unsure, alike(1.0)).logits[0, 0].item() > 0.98
    assert lean(unsure, sure, alike(1.0)).logits[0, 0].item() > 0.98


def mixed(mixture):
    return mixture.added_up(0, [side.opinion.logits[0, :1].reshape(-1, 1) for side in mixture.sides])[:, 0]


def test_frames_lean_on_the_keyframe_that_a_position_resembles():
    before, after = opinion(4.0, 4.0, 4.0), opinion(-4.0, -4.0, -4.0)
    sides = [
        Side(before, alike(1.0, 0.0, 0.5), torch.tensor([0.5])),
        Side(after, alike(0.0, 1.0, 0.5), torch.tensor([0.5])),
    ]
    found = mix(sides)
    torch.testing.assert_close(mixed(found), torch.tensor([4.0, -4.0, 0.0]))
    torch.testing.assert_close(found.similarity[0, 0], torch.tensor([1.0, 1.0, 0.5]))
    assert found.own_fraction.tolist() == [0]


def test_another_scene_is_not_taken_where_there_is_no_evidence():
    sides = [
        Side(opinion(1.0, 1.0), alike(0.0, 0.0), torch.tensor([0.5])),
        Side(opinion(2.0, 2.0), alike(0.0, 1.0), torch.tensor([0.5])),
    ]
    torch.testing.assert_close(mixed(mix(sides)), torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(mixed(mix(sides[::-1])), torch.tensor([2.0, 2.0]))


def test_frames_take_from_where_things_were():
    before = opinion(1.0, 2.0, 3.0)
    after = opinion(10.0, 20.0, 30.0)
    near = torch.tensor([1.0, 0.5])
    like = Likeness(torch.tensor([0, 1, 2, 2, 2, 0]), *[torch.ones(2, 1, 1, 3)] * 2)
    still = Likeness(None, *[torch.ones(2, 1, 1, 3)] * 2)
    found = mix([Side(before, like, near), Side(after, still, 1 - near)])
    values = [side.opinion.logits[0, :1].reshape(-1, 1) for side in found.sides]
    near_before, amid = (found.added_up(row, values).flatten() for row in (0, 1))
    torch.testing.assert_close(near_before, torch.tensor([1.0, 2.0, 3.0]), rtol=1e-4, atol=0)
    torch.testing.assert_close(amid, torch.tensor([6.5, 11.5, 15.5]))
    assert torch.equal(found.added_up(1, values, torch.tensor([2, 0])).flatten(), amid[[2, 0]])


def test_frames_are_asked_where_they_resemble_neither():
    like = alike(0.0, 0.25 * ENOUGH, ENOUGH, 1.0)
    found = mix([Side(opinion(-4.0, -4.0, -4.0, -4.0), like, torch.tensor([1.0]))])
    torch.testing.assert_close(found.own[0, 0, 0], torch.tensor([1, 0.75, 0, 0]))
    assert found.own_fraction.tolist() == [0.5]
    few = alike(*[1.0] * 99, 0.0)
    assert mix([Side(opinion(*[1.0] * 100), few, torch.tensor([1.0]))]).own_fraction.tolist() == [0]


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mit_b0"])
@torch.inference_mode()
def test_what_is_said_of_a_keyframe_is_the_image_network_bit_for_bit(backbone):
    network = build_tiny_network(backbone).fold()
    images = moving_clip(2)
    assert torch.equal(network.opinion(images).logits, network.image(images))
    assert torch.equal(network.say(network.glimpse(images)), network.image(images))


@torch.inference_mode()
def test_a_still_picture_stays_bit_for_bit():
    network = build_tiny_network().fold()
    said = network.opinion(moving_clip(1))
    like = compare(said.match, said.match, (16, 24), EVIDENCE)
    assert like.rows is None
    leaned = lean(said, lean(said, said, like), like)
    assert torch.equal(leaned.logits, said.logits)
    seen = network.glimpse(moving_clip(1, (32, 64)))
    still = compare(seen.match, seen.match, (16, 24), EVIDENCE)
    near = torch.tensor([0.5])
    found = mix([Side(leaned, still, near), Side(leaned, still, 1 - near)])
    assert found.own_fraction.tolist() == [0]
    cells = leaned.logits.permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.equal(found.added_up(0, [cells, cells]), cells)


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
