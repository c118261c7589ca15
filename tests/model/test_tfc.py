"""The network as a whole: what a keyframe and the frames after it are to each other.

Most of it runs in double precision: there, "the same up to rounding" is 1e-8, and no point sits on the threshold.
"""

import copy

import pytest
import torch

from tests.helpers import written_out
from tests.helpers.tiny_model import BACKBONES, build_tiny_network, halving_threshold, moving_clip
from tfcseg.model.config import ModelConfig
from tfcseg.model.options import CORRELATIONS, InferenceOptions
from tfcseg.model.tfc import Keyframe, build_segmenter

SIZE = (32, 64)
MODES = [(mode, correlation) for mode in ("reuse", "tfc") for correlation in CORRELATIONS]


def close(actual, wanted, tolerance=1e-8):
    torch.testing.assert_close(actual, wanted, atol=tolerance, rtol=0)


def same_results(actual, wanted):
    close(actual.logits, wanted.logits)
    close(actual.similarity, wanted.similarity)
    assert torch.equal(actual.updated_fraction, wanted.updated_fraction)


def rows(memory, index):
    """Part of the intervals of a memory."""
    parts = {name: part[index] for name, part in memory._asdict().items() if isinstance(part, torch.Tensor)}
    return Keyframe(**parts, levels=tuple(level[index] for level in memory.levels))


@pytest.fixture(scope="module", params=BACKBONES)
def network(request):
    return build_tiny_network(request.param).double()


@pytest.fixture(scope="module")
def single(network):
    """The same network in single precision, for what holds bit for bit."""
    return copy.deepcopy(network).float()


@pytest.fixture(scope="module")
def clip():
    return moving_clip(4, SIZE).double()


@pytest.fixture(scope="module")
def keyframe(network, clip):
    """Logits and memory of the clip's first frame, and a threshold below half of the others' similarities."""
    with torch.inference_mode():
        logits, memory = network.keyframe(clip[:1])
        similarity = network.non_keyframes(clip[1:], memory, InferenceOptions(mode="reuse")).similarity
    return logits, memory, halving_threshold(similarity)


@torch.inference_mode()
def test_keyframes_are_the_image_network_bit_for_bit(single):
    images = moving_clip(2, SIZE)
    assert torch.equal(single.keyframe(images)[0], single.image(images))
    single = copy.deepcopy(single).fold()
    assert torch.equal(single.keyframe(images)[0], single.image(images))


@torch.inference_mode()
def test_a_keyframe_is_written_out(network, clip):
    x1, x2 = network.backbone.encode_low(clip[:2])
    x3, x4 = network.backbone.encode_high(x2)
    z = written_out.embed(network.decode_head, (x1, x2, x3, x4))
    logits, memory = network.keyframe(clip[:2])
    close(logits, written_out.classify(network.decode_head, z))
    close(memory.embedding, z)
    assert len(logits.argmax(1).unique()) >= 4


@pytest.mark.parametrize(("mode", "correlation"), MODES)
@torch.inference_mode()
def test_equations_4_to_11_are_written_out(network, clip, keyframe, mode, correlation):
    _, memory, threshold = keyframe
    options = {"mode": mode, "threshold": threshold}
    result = network.non_keyframes(clip[1:], memory, InferenceOptions(correlation=correlation, **options))
    assert (result.shift is not None) == (correlation == "aligned")
    for t in (0, 2):
        where = {}
        if result.shift is not None:
            where = {"cells": result.shift.cells[t], "coarse_rows": result.shift.coarse_rows.view(3, -1)[t]}
        logits, w = written_out.non_keyframe(network, clip[:1], clip[1 + t : 2 + t], **where, **options)
        close(result.similarity[t], w)
        # The points' positions are single precision numbers.
        close(result.logits[t], logits, 1e-4)
        updated = (w < threshold).float().mean() if mode == "tfc" else torch.zeros(())
        close(result.updated_fraction[t], updated, 1e-6)


@torch.inference_mode()
def test_each_step_changes_the_result(network, clip, keyframe):
    """Otherwise the comparison with what is written out would prove little."""
    _, memory, threshold = keyframe
    interpolated = network.non_keyframes(clip[1:], memory, InferenceOptions(threshold=-1.0))
    updated = network.non_keyframes(clip[1:], memory, InferenceOptions(threshold=threshold))
    reused = network.non_keyframes(clip[1:], memory, InferenceOptions(mode="reuse"))
    difference = (updated.logits - interpolated.logits).abs().amax(1)
    is_updated = updated.similarity < threshold
    assert 0.2 < is_updated.double().mean() < 0.8
    assert difference[is_updated].min() > 1e-3
    assert difference[~is_updated].max() == 0
    assert (interpolated.logits - reused.logits).abs().mean() > 1e-2
    assert (reused.logits - network.image(clip[1:])).abs().mean() > 1e-2


@pytest.mark.parametrize(("mode", "correlation"), MODES)
@torch.inference_mode()
def test_a_still_clip_stays_what_it_is(single, mode, correlation):
    image = moving_clip(1, SIZE)
    logits, memory = single.keyframe(image)
    result = single.non_keyframes(image, memory, InferenceOptions(mode=mode, correlation=correlation))
    assert torch.equal(result.logits, logits)
    assert result.shift is None
    three = single.non_keyframes(
        image.expand(3, -1, -1, -1), memory, InferenceOptions(mode=mode, correlation=correlation)
    )
    close(three.similarity, torch.ones_like(three.similarity), 1e-6)
    assert three.updated_fraction.tolist() == [0, 0, 0]
    close(three.logits, logits.expand(3, -1, -1, -1), 1e-4)


@pytest.mark.parametrize("correlation", CORRELATIONS)
@torch.inference_mode()
def test_frames_of_an_interval_do_not_know_each_other(network, clip, keyframe, correlation):
    _, memory, threshold = keyframe
    options = {"threshold": threshold, "correlation": correlation}
    together = network.non_keyframes(clip[1:], memory, InferenceOptions(**options))
    backwards = network.non_keyframes(clip[1:].flip(0), memory, InferenceOptions(**options))
    close(backwards.logits.flip(0), together.logits)
    for t in range(3):
        alone = network.non_keyframes(clip[1 + t : 2 + t], memory, InferenceOptions(**options))
        close(alone.logits, together.logits[t : t + 1])
        close(alone.similarity, together.similarity[t : t + 1])
        assert alone.updated_fraction == together.updated_fraction[t]


@pytest.mark.parametrize(("mode", "correlation"), MODES)
@torch.inference_mode()
def test_intervals_in_one_call_do_not_know_each_other(network, clip, keyframe, mode, correlation):
    options = {"mode": mode, "correlation": correlation, "threshold": keyframe[2]}
    other = moving_clip(4, SIZE, seed=1).double()
    logits, memory = network.keyframe(torch.stack([clip[0], other[0]]))
    together = network.non_keyframes(torch.cat([clip[1:3], other[1:3]]), memory, InferenceOptions(**options))
    for interval, frames in enumerate((clip, other)):
        own_logits, own_memory = network.keyframe(frames[:1])
        close(logits[interval : interval + 1], own_logits)
        own = network.non_keyframes(frames[1:3], own_memory, InferenceOptions(**options))
        part = slice(2 * interval, 2 * interval + 2)
        close(together.logits[part], own.logits)
        close(together.similarity[part], own.similarity)
        assert torch.equal(together.updated_fraction[part], own.updated_fraction)
        same_results(
            network.non_keyframes(
                frames[1:3], rows(memory, slice(interval, interval + 1)), InferenceOptions(**options)
            ),
            own,
        )


@torch.inference_mode()
def test_a_memory_can_be_used_again(network, clip, keyframe):
    _, memory, threshold = keyframe
    before = copy.deepcopy(memory)
    first = network.non_keyframes(clip[1:], memory, InferenceOptions(threshold=threshold))
    for part, kept in zip([*memory[:5], *memory.levels], [*before[:5], *before.levels], strict=True):
        assert torch.equal(part, kept)
    again = network.non_keyframes(clip[1:], memory, InferenceOptions(threshold=threshold))
    assert torch.equal(again.logits, first.logits)


@pytest.mark.parametrize("correlation", CORRELATIONS)
@torch.inference_mode()
def test_folding_changes_rounding_only(network, clip, keyframe, correlation):
    logits, memory, threshold = keyframe
    folded = copy.deepcopy(network).fold()
    assert folded.fold() is folded
    folded_logits, folded_memory = folded.keyframe(clip[:1])
    close(folded_logits, logits)
    options = {"threshold": threshold, "correlation": correlation}
    result = folded.non_keyframes(clip[1:], folded_memory, InferenceOptions(**options))
    wanted = network.non_keyframes(clip[1:], memory, InferenceOptions(**options))
    same_results(result, wanted)
    assert torch.equal(result.logits.argmax(1), wanted.logits.argmax(1))


@torch.inference_mode()
def test_folding_in_single_precision(single, keyframe):
    clip, threshold = moving_clip(4, SIZE), keyframe[2]
    wanted = single.non_keyframes(clip[1:], single.keyframe(clip[:1])[1], InferenceOptions(threshold=threshold))
    folded = copy.deepcopy(single).fold()
    result = folded.non_keyframes(clip[1:], folded.keyframe(clip[:1])[1], InferenceOptions(threshold=threshold))
    close(result.similarity, wanted.similarity, 1e-4)
    best, second = wanted.logits.topk(2, dim=1).values.unbind(1)
    is_clear = best - second > 1e-2
    assert is_clear.float().mean() > 0.9
    assert torch.equal(result.logits.argmax(1)[is_clear], wanted.logits.argmax(1)[is_clear])


def test_folding_ends_training_mode():
    network = build_tiny_network().train().fold()
    assert [name for name, module in network.named_modules() if module.training] == []


@torch.inference_mode()
def test_threshold_and_correlation_default_to_the_configuration(network, clip, keyframe):
    memory = keyframe[1]
    default = network.non_keyframes(clip[1:], memory)
    assert torch.equal(default.logits, network.non_keyframes(clip[1:], memory, InferenceOptions(threshold=0.8)).logits)
    assert torch.equal(
        default.logits, network.non_keyframes(clip[1:], memory, InferenceOptions(correlation="paper")).logits
    )


def test_gradients_reach_every_parameter():
    network = build_tiny_network("mit_b0").train()
    clip = moving_clip(4, SIZE)
    logits, memory = network.keyframe(clip[:1])
    result = network.non_keyframes(clip[1:], memory, InferenceOptions(threshold=1.0))
    (logits.square().mean() + result.logits.square().mean() + result.similarity.mean()).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
    assert network.update.attention.offsets.weight.grad.abs().max() > 0


def test_keyframes_and_others_share_all_weights_but_the_update():
    """0.8 M at D 256, which the paper counts as 0.7."""
    network = build_segmenter(ModelConfig("mit_b0", embed_dim=256, num_classes=124))
    own = sum(parameter.numel() for parameter in network.update.parameters())
    total = sum(parameter.numel() for parameter in network.parameters())
    assert own / 1e6 == pytest.approx(0.76, abs=0.01)
    assert (total - own) / 1e6 == pytest.approx(3.8, abs=0.1)


@pytest.mark.parametrize("name", ["resnet50", "mit_b6"])
def test_unknown_backbones_are_refused(name):
    with pytest.raises(ValueError, match=f"unknown backbone '{name}'"):
        build_segmenter(ModelConfig(name, embed_dim=16, num_classes=3))
