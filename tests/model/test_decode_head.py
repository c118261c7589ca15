"""The decode head's shortcuts against SegFormer's head as it is written (eqs 2 and 3).

In double precision "exact up to rounding" means 1e-12: anything a float32 test would have to tolerate shows here.
"""

import copy

import pytest
import torch

from tests.helpers import written_out
from tests.helpers.tiny_model import randomise
from tfcseg.model.decode_head import DecodeHead, resize

CHANNELS = (3, 5, 7, 11)
SIZES = [
    [(16, 24), (8, 12), (4, 6), (2, 3)],
    [(13, 17), (7, 9), (4, 5), (2, 3)],
    [(8, 8), (8, 8), (3, 2), (1, 1)],
    [(16, 24), (8, 12), (4, 6), (4, 6)],  # as of MOSAIC
]


def close(actual, wanted, tolerance=1e-12):
    torch.testing.assert_close(actual, wanted, atol=tolerance, rtol=0)


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = DecodeHead(CHANNELS, embed_dim=6, num_classes=4).double().eval()
    randomise(head)
    return head


def pyramid(sizes, *, batch=2, seed=1):
    torch.manual_seed(seed)
    return [torch.randn(batch, c, *size, dtype=torch.float64) for c, size in zip(CHANNELS, sizes, strict=True)]


def embed(head, levels):
    size = tuple(levels[0].shape[-2:])
    rest = head.fuse_level(levels[1], 1, size).add_(head.fuse_high(*levels[2:], size))
    return head.embed(levels[0], rest)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_sum_of_levels_is_the_concatenation(head, sizes):
    levels = pyramid(sizes)
    wanted = written_out.embed(head, levels)
    assert 0.2 < (wanted > 0).double().mean() < 0.8  # the ReLU cuts, but not everything
    close(embed(head, levels), wanted)


@pytest.mark.parametrize("sizes", SIZES)
def test_folding_changes_rounding_only(head, sizes):
    levels = pyramid(sizes)
    folded = copy.deepcopy(head)
    folded.fold()
    close(embed(folded, levels), written_out.embed(head, levels))


def test_folding_twice_is_folding_once(head):
    levels = pyramid(SIZES[0])
    head.fold()
    once = embed(head, levels)
    head.fold()
    assert torch.equal(embed(head, levels), once)


def test_training_statistics_are_those_of_the_plain_head(head):
    """The norm sees the same sum, so a batch moves its statistics in the same way."""
    levels = pyramid(SIZES[0])
    plain = copy.deepcopy(head).train()
    close(embed(head.train(), levels), written_out.embed(plain, levels))
    close(head.norm.running_mean, plain.norm.running_mean)
    close(head.norm.running_var, plain.norm.running_var)


@pytest.mark.parametrize("is_folded", [False, True])
def test_a_keyframes_high_levels_serve_another_frames_low_ones(head, is_folded):
    keyframe, current = pyramid(SIZES[0], seed=1), pyramid(SIZES[0], seed=2)
    wanted = written_out.embed(head, [*current[:2], *keyframe[2:]])
    if is_folded:
        head.fold()
    high = head.fuse_high(*keyframe[2:], SIZES[0][0])
    kept = high.clone()
    close(head.embed(current[0], head.fuse_level(current[1], 1, SIZES[0][0]).add_(high)), wanted)
    assert torch.equal(high, kept)  # it will be needed for the next frame


def test_logits_are_those_of_the_plain_head(head):
    z = embed(head, pyramid(SIZES[0]))
    wanted = written_out.classify(head, z)
    close(head.classify(z), wanted)
    head.fold()
    assert torch.equal(head.classify(z), head.classifier(z))


@pytest.mark.parametrize("level", range(4))
def test_levels_are_projected_at_their_own_size(head, level):
    x = pyramid(SIZES[0])[level]
    wanted = written_out.linear(head.projections[level], x)
    close(head.project(x, level), wanted)
    head.fold()
    close(head.project(x, level), wanted)  # MSDA and similarity still need it


def test_resize_is_bilinear_with_aligned_pixel_centres():
    row = torch.tensor([[[[0.0, 4.0]]]])
    assert resize(row, (1, 4)).flatten().tolist() == [0, 1, 3, 4]
    assert resize(row, (1, 2)) is row
