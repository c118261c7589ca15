"""Sampling and weighing of eq. 10 against a written-out loop, against `grid_sample`, and by hand."""

import pytest
import torch
from torch.nn import functional as F

from tests.helpers import written_out
from tfcseg.model.ops.sampling import UnprojectedLevel, sample_and_weigh

HEADS, DEPTH, POINTS, COUNT = 2, 4, 3, 6
SIZES = ((8, 12), (4, 6), (3, 2), (1, 1))
STACKS = (4, 4, 2, 2)
CHANNELS = (3, 5, 8, 9)


def draw(dtype=torch.float64, *, count=COUNT):
    """Rows, references, offsets and weights; part of the samples lies outside of the maps."""
    rows = [torch.randint(stack, (count,)) for stack in STACKS]
    reference = torch.rand(count, 4, 2, dtype=dtype)
    offsets = torch.randn(count, HEADS, 4, POINTS, 2, dtype=dtype) * 2
    return rows, reference, offsets, torch.rand(count, HEADS, 4, POINTS, dtype=dtype)


def draw_maps(dtype=torch.float64):
    return [torch.randn(s, *size, HEADS, DEPTH, dtype=dtype) for s, size in zip(STACKS, SIZES, strict=True)]


def draw_unprojected(dtype=torch.float64):
    """Levels of few and of many channels, one of them not channels_last."""
    levels = []
    for stack, size, channels in zip(STACKS, SIZES, CHANNELS, strict=True):
        x = torch.randn(stack, channels, *size, dtype=dtype)
        weight, bias = torch.randn(HEADS * DEPTH, channels, dtype=dtype), torch.randn(HEADS * DEPTH, dtype=dtype)
        levels.append(UnprojectedLevel(x.to(memory_format=torch.channels_last), weight, bias))
    return [*levels[:3], levels[3]._replace(features=levels[3].features.contiguous())]


def value_map(level):
    values = torch.einsum("dc,schw->shwd", level.weight, level.features) + level.bias
    return values.unflatten(-1, (HEADS, DEPTH))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_it_is_the_loop():
    maps, (rows, reference, offsets, weights) = draw_maps(), draw()
    wanted = torch.zeros(COUNT, HEADS, DEPTH).double()
    is_outside = 0
    for n, m, level, p in torch.cartesian_prod(*map(torch.arange, (COUNT, HEADS, 4, POINTS))).tolist():
        height, width = SIZES[level]
        x, y = (reference[n, level] + offsets[n, m, level, p] / torch.tensor([width, height])).tolist()
        is_outside += not (0 < x < 1 and 0 < y < 1)
        found = written_out.sample(maps[level][rows[level][n], :, :, m], x, y)
        wanted[n, m] += weights[n, m, level, p] * found
    assert 10 < is_outside < 120
    torch.testing.assert_close(sample_and_weigh(maps, rows, reference, offsets, weights), wanted.flatten(1))


def test_it_is_grid_sample():
    """PyTorch's own bilinear sampling with zeros around, one level, head and row of the stack at a time."""
    maps, (rows, reference, offsets, weights) = draw_maps(), draw(count=50)
    wanted = torch.zeros(50, HEADS, DEPTH).double()
    for level, (height, width) in enumerate(SIZES):
        locations = reference[:, None, level, None] + offsets[:, :, level] / torch.tensor([width, height])
        for m in range(HEADS):
            stack = maps[level][..., m, :].permute(0, 3, 1, 2)[rows[level]]  # (N, d, h, w)
            grid = 2 * locations[:, m, None] - 1  # (N, 1, P, 2)
            found = F.grid_sample(stack, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            wanted[:, m] += (found[:, :, 0] * weights[:, m, level, None]).sum(-1)
    torch.testing.assert_close(sample_and_weigh(maps, rows, reference, offsets, weights), wanted.flatten(1))


def test_projection_may_follow_sampling():
    levels, drawn = draw_unprojected(), draw(count=50)
    maps = list(map(value_map, levels))
    wanted = sample_and_weigh(maps, *drawn)
    torch.testing.assert_close(sample_and_weigh(levels, *drawn), wanted)
    torch.testing.assert_close(sample_and_weigh([*levels[:2], *maps[2:]], *drawn), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    rows, reference, offsets, weights = draw(torch.float32, count=50)
    levels = [UnprojectedLevel(*(tensor.to(dtype) for tensor in level)) for level in draw_unprojected()]
    maps = list(map(value_map, (UnprojectedLevel(*(tensor.float() for tensor in level)) for level in levels)))
    wanted = sample_and_weigh(maps, rows, reference, offsets, weights)
    for given in (levels, [values.to(dtype) for values in maps]):
        found = sample_and_weigh(given, rows, reference, offsets, weights)
        assert found.dtype == dtype
        # A few roundings of numbers as large as the largest sum.
        assert (found.float() - wanted).abs().max() <= 4 * torch.finfo(dtype).eps * wanted.abs().max()


def read_at(value, x, y):
    """Sample of the single map ``value`` (h, w) at (x, y) in 0…1, the other levels being empty."""
    levels = [value[None, :, :, None, None], *[torch.zeros(1, 1, 1, 1, 1)] * 3]
    row = torch.zeros(1, dtype=torch.long)
    reference = torch.tensor([x, y]).expand(1, 4, 2)
    return sample_and_weigh(levels, [row] * 4, reference, torch.zeros(1, 1, 4, 1, 2), torch.ones(1, 1, 4, 1)).item()


def test_samples_by_hand():
    value = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert read_at(value, 0.25, 0.25) == 1  # the centre of the first cell
    assert read_at(value, 0.75, 0.25) == 2
    assert read_at(value, 0.25, 0.75) == 3
    assert read_at(value, 0.5, 0.5) == 2.5
    assert read_at(value, 0.625, 0.25) == 1.75


def test_samples_outside_are_zero():
    value = torch.tensor([[8.0, 8.0], [8.0, 8.0]])
    assert read_at(value, 0.0, 0.5) == 4  # the border runs half-way between a cell and nothing
    assert read_at(value, 1.0, 0.0) == 2
    for x, y in ((-0.3, 0.5), (1.3, 0.5), (0.5, -0.3), (0.5, 1.3), (-90.0, 0.5), (0.5, 1e6), (1e30, 0.5)):
        assert read_at(value, x, y) == 0


def test_no_point_at_all():
    assert sample_and_weigh(draw_maps(), *draw(count=0)).shape == (0, HEADS * DEPTH)
    assert sample_and_weigh(draw_unprojected(), *draw(count=0)).shape == (0, HEADS * DEPTH)


def test_tables_beyond_32_bit(monkeypatch):
    levels, drawn = draw_maps(), draw()
    wanted = sample_and_weigh(levels, *drawn)
    monkeypatch.setattr("tfcseg.model.ops.sampling.INT32_MAX", 20)
    assert torch.equal(sample_and_weigh(levels, *drawn), wanted)


@pytest.mark.parametrize("is_projected", [True, False])
def test_gradients(is_projected):
    rows, reference, offsets, weights = draw(count=2)
    levels = draw_maps() if is_projected else draw_unprojected()
    flat = [tensor for level in levels for tensor in ([level] if is_projected else level)]

    def sampled(reference, offsets, weights, *flat):
        given = flat if is_projected else [UnprojectedLevel(*flat[i : i + 3]) for i in range(0, len(flat), 3)]
        return sample_and_weigh(given, rows, reference, offsets, weights)

    inputs = [tensor.requires_grad_() for tensor in (reference, offsets, weights, *flat)]
    assert torch.autograd.gradcheck(sampled, inputs, fast_mode=True)
