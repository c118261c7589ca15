"""Keyframes take over what the one before said, where they agree, and nothing where something changed."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from tests.helpers import written_out
from tests.helpers.tiny_model import build_tiny_network, moving_clip
from tfcseg.errors import OutputError
from tfcseg.model.alignment import find_shift
from tfcseg.model.carry_over import SAME_SCENE, Carried, Carrying, carry_over, carry_weight
from tfcseg.model.options import CORRELATIONS, InferenceOptions
from tfcseg.runs.job import load_carried, save_carried

SIZE = (32, 64)
CARRY, THRESHOLD = 0.9, 0.6


@pytest.fixture(scope="module")
def network():
    return build_tiny_network().double()


@pytest.fixture(scope="module")
def clip():
    """Three keyframes, some way apart."""
    return moving_clip(7, SIZE).double()[::3]


def options(correlation="paper", carry=CARRY):
    return InferenceOptions(threshold=THRESHOLD, correlation=correlation, keyframe_carry=carry)


def keyframe_after(network, image, before, given=None):
    """Logits of a keyframe that takes over what the one before left, and its memory."""
    memory = network.carry_over(network.keyframe(image)[1], before, given)
    return memory.logits, memory


def written_out_weight(network, before, image, cells):
    """Weight g of one keyframe, position by position, and w."""
    features = [network.decode_head.projections[1](x.permute(0, 2, 3, 1)) for x in (before, image)]
    size = [2 * side for side in features[0].shape[1:3]]
    k, t = (written_out.enlarge(x.permute(0, 3, 1, 2), size) for x in features)
    k = written_out.displace(k, cells)
    w = (k * t).sum(1) / ((k * k).sum(1).sqrt() * (t * t).sum(1).sqrt())
    g = CARRY * ((w - THRESHOLD) / (1 - THRESHOLD)).clamp(min=0, max=1)
    return g if (w >= THRESHOLD).sum() >= SAME_SCENE * w.numel() else 0 * g, w


@pytest.mark.parametrize("correlation", CORRELATIONS)
@torch.inference_mode()
def test_the_equation_is_written_out(network, clip, correlation):
    carried = network.keyframe(clip[:1])[1].carried
    levels = [network.backbone.encode_low(image[None])[1] for image in clip]
    matches = [network.decode_head.project(level, 1) for level in levels]
    wanted = carried.logits
    kept = []
    for k in (1, 2):
        fresh = network.image(clip[k : k + 1])
        shift = find_shift(matches[k - 1], matches[k]) if correlation == "aligned" else None
        cells = None if shift is None else shift.cells[0]
        g, w = written_out_weight(network, levels[k - 1], levels[k], cells)
        wanted = fresh + g * (written_out.displace(wanted, cells) - fresh)
        logits, memory = keyframe_after(network, clip[k : k + 1], carried, options(correlation))
        torch.testing.assert_close(logits, wanted, atol=1e-8, rtol=0)
        assert torch.equal(memory.logits, logits)  # what the frames between keyframes lean on
        is_new = (w < THRESHOLD)[0]
        assert torch.equal(logits[0, :, is_new], fresh[0, :, is_new])
        kept.append((~is_new).double().mean().item())
        carried = memory.carried
    assert 0.2 < np.mean(kept) < 0.98
    assert (shift is not None) == (correlation == "aligned")


@torch.inference_mode()
def test_without_carry_or_a_keyframe_before_nothing_changes(network, clip):
    fresh, _ = network.keyframe(clip[1:2])
    assert torch.equal(keyframe_after(network, clip[1:2], None, options())[0], fresh)
    before = network.keyframe(clip[:1])[1].carried
    assert torch.equal(keyframe_after(network, clip[1:2], before, options(carry=0.0))[0], fresh)
    assert torch.equal(keyframe_after(network, clip[1:2], before)[0], fresh)  # the configuration's, as in the paper
    assert not torch.equal(keyframe_after(network, clip[1:2], before, options())[0], fresh)
    carrying = copy.deepcopy(network)
    carrying.config = dataclasses.replace(
        network.config, defaults=dataclasses.replace(network.config.defaults, keyframe_carry=CARRY)
    )
    assert not torch.equal(keyframe_after(carrying, clip[1:2], before)[0], fresh)
    assert torch.equal(carrying.keyframe(clip[:2])[0], network.image(clip[:2]))  # a batch of training is no video


@pytest.mark.parametrize("correlation", CORRELATIONS)
@torch.inference_mode()
def test_a_still_picture_stays_bit_for_bit(correlation):
    network = build_tiny_network().fold()
    image = moving_clip(1, SIZE)
    logits, memory = network.keyframe(image)
    for _ in range(3):
        again, memory = keyframe_after(network, image, memory.carried, options(correlation))
        assert torch.equal(again, logits)


def test_weights_by_hand():
    w = torch.tensor([-1.0, 0.5, 0.8, 0.9, 1.0]).view(1, 1, 1, 5)

    def weights(carry, threshold):
        return carry_weight(w, Carrying(carry, threshold, False)).flatten()

    torch.testing.assert_close(weights(0.5, 0.8), torch.tensor([0, 0, 0, 0.25, 0.5]))
    torch.testing.assert_close(weights(1.0, 0.0), torch.tensor([0, 0.5, 0.8, 0.9, 1.0]))
    assert weights(1.0, 1.0).tolist() == [0, 0, 0, 0, 0]  # a fifth of the points is no scene
    assert weights(1.0, 0.85).tolist()[3] > 0  # two fifths are


@torch.inference_mode()
def test_another_scene_begins_anew(network, clip):
    """Even where it happens to look like the one before."""
    fresh, memory = network.keyframe(clip[:1])
    width = memory.match.shape[-1]
    for columns, is_same in ((width // 4, False), (3 * width // 4, True)):
        match = torch.cat([memory.match[..., :columns], -memory.match[..., columns:]], dim=-1)
        before = Carried(memory.logits.flip(1), match)
        logits, _ = keyframe_after(network, clip[:1], before, options())
        assert torch.equal(logits, fresh) != is_same
    how = Carrying(CARRY, THRESHOLD, aligned=False)
    other = Carried(memory.logits.flip(1), -memory.match)
    assert torch.equal(carry_over(other, memory.carried, how), other.logits)
    assert not torch.equal(carry_over(other, other._replace(logits=memory.logits), how), other.logits)


def test_the_size_of_images_that_can_use_it():
    current = Carried(torch.randn(1, 3, 4, 8), torch.randn(1, 5, 2, 4))
    assert current.fits((16, 32))
    assert not current.fits((32, 32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_file_keeps_every_bit(tmp_path, dtype):
    carried = Carried(torch.randn(1, 3, 4, 8).to(dtype), torch.randn(1, 5, 2, 4).to(dtype))
    save_carried(tmp_path / "carried.npz", carried)
    for kept, found in zip(carried, load_carried(tmp_path / "carried.npz"), strict=True):
        assert torch.equal(found.to(dtype), kept)
    (tmp_path / "carried.npz").write_bytes((tmp_path / "carried.npz").read_bytes()[:-40])
    with pytest.raises(OutputError, match=r"carried\.npz"):
        load_carried(tmp_path / "carried.npz")
