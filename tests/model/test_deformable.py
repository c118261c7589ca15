"""Deformable attention against a written-out loop, against transformers' Deformable DETR, and its sparse use."""

import inspect

import pytest
import torch
from torch.func import functional_call
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrMultiscaleDeformableAttention

from tests.helpers import written_out
from tests.helpers.tiny_model import randomise
from tfcseg.model.correlation import Points
from tfcseg.model.deformable import BLOCK_POINTS, DeformableAttention, SparseUpdate
from tfcseg.model.ops.sampling import UnprojectedLevel

DIM, HEADS, POINTS = 8, 2, 3
SIZES = ((8, 12), (4, 6), (3, 2), (1, 1))
FRAMES = 4
STACKS = (FRAMES, FRAMES, 2, 2)
"""Maps in the stack of each level: current frames at levels 1 and 2, their two keyframes at 3 and 4."""


def projected_levels(dtype=torch.float64):
    """x̂1…x̂4, (S_l, D, h_l, w_l) each."""
    return [torch.randn(stack, DIM, *size, dtype=dtype) for stack, size in zip(STACKS, SIZES, strict=True)]


def rows_of(frame):
    return (frame, frame, frame // 2, frame // 2)


def random_points(count):
    height, width = SIZES[0]
    cells = torch.randperm(FRAMES * height * width)[:count]
    return Points(cells // (height * width), cells // width % height, cells % width)


def all_points():
    height, width = SIZES[0]
    return Points(*(index.flatten() for index in torch.cartesian_prod(*map(torch.arange, (FRAMES, height, width))).T))


@pytest.fixture
def update():
    torch.manual_seed(0)
    update = SparseUpdate(DIM, HEADS, POINTS, ffn_dim=10).double()
    randomise(update)
    return update


def test_attention_is_the_loop(update):
    attention = update.attention
    levels = projected_levels()
    frame = torch.tensor([0, 3, 1, 2, 3])
    query, reference = torch.randn(5, DIM).double(), torch.rand(5, 4, 2).double()
    values = [attention.project_value(level) for level in levels]
    attended = attention(query, reference, values, rows_of(frame))
    for n in range(5):
        grids = [level[row[n]].permute(1, 2, 0) for level, row in zip(levels, rows_of(frame), strict=True)]
        wanted = written_out.attend(attention, query[n], reference[n].tolist(), grids)
        torch.testing.assert_close(attended[n], wanted)


def test_attention_is_that_of_transformers_deformable_detr(update):
    ours = update.attention.float()
    theirs = DeformableDetrMultiscaleDeformableAttention(DeformableDetrConfig(d_model=DIM), HEADS, POINTS)
    names = {"sampling_offsets": "offsets", "attention_weights": "weights", "value_proj": "value"}
    for name, own in (names | {"output_proj": "output"}).items():
        getattr(theirs, name).load_state_dict(getattr(ours, own).state_dict())
    levels = projected_levels(torch.float32)
    count = 20
    query, reference = torch.randn(FRAMES, count, DIM), torch.rand(FRAMES, count, 4, 2)
    frame = torch.arange(FRAMES).repeat_interleave(count)
    mine = ours(query.flatten(0, 1), reference.flatten(0, 1), list(map(ours.project_value, levels)), rows_of(frame))
    in_batch = [level.repeat_interleave(FRAMES // len(level), dim=0) for level in levels]
    call = {
        "hidden_states": query,
        "encoder_hidden_states": torch.cat([level.flatten(2).transpose(1, 2) for level in in_batch], dim=1),
        "reference_points": reference,
        "spatial_shapes": torch.tensor(SIZES),
        "spatial_shapes_list": SIZES,
        "level_start_index": torch.tensor([0, *[h * w for h, w in SIZES]]).cumsum(0)[:4],
    }
    known = inspect.signature(theirs.forward).parameters  # transformers 4.44 knows no list of shapes yet
    wanted = theirs(**{name: value for name, value in call.items() if name in known})[0]
    assert wanted.std() > 0.3
    torch.testing.assert_close(mine, wanted.flatten(0, 1), atol=1e-5, rtol=0)


def test_heads_start_by_looking_in_different_directions():
    """Deformable DETR's start: eight directions around, the points of a head one after the other, equal weights."""
    attention = DeformableAttention(DIM, heads=8, points=2)
    query = torch.randn(3, DIM)
    offsets = attention.offsets(query).view(3, 8, 4, 2, 2)
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, direction in enumerate(directions):
        for point in range(2):
            wanted = torch.tensor(direction, dtype=torch.float32) * (point + 1)
            torch.testing.assert_close(offsets[:, head, :, point], wanted.expand(3, 4, 2))
    assert not attention.weights(query).any()


def test_half_precision_tells_the_cells_of_a_wide_map_apart():
    width = 200
    attention = DeformableAttention(1, heads=1, points=1).bfloat16()
    for layer in (attention.value, attention.output):
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    torch.nn.init.zeros_(attention.offsets.bias)
    ramp = torch.arange(width).bfloat16().view(1, 1, 1, width).expand(1, 1, 3, width)
    x = torch.arange(width)
    reference = torch.stack([(x + 0.5) / width, torch.full((width,), 0.5)], -1)[:, None].expand(-1, 4, -1)
    row = torch.zeros(width, dtype=torch.long)
    values = [attention.project_value(ramp)] * 4
    found = attention(torch.zeros(width, 1).bfloat16(), reference, values, [row] * 4)
    # The whole numbers below 256 are bfloat16's own; its locations would be wrong by up to half a cell.
    torch.testing.assert_close(found[:, 0].float(), x.float(), atol=0, rtol=2**-8)
    assert (found[:, 0].round() == x).float().mean() > 0.9


def queries(z, points):
    """Embeddings (N, D) of the points of z (S, D, h, w)."""
    return z[points.frame, :, points.y, points.x]


@pytest.mark.parametrize("is_shifted", [False, True])
def test_the_sparse_update_is_the_loop(update, is_shifted):
    z, levels = torch.randn(FRAMES, DIM, *SIZES[0]).double(), projected_levels()
    points = random_points(8)
    values = list(map(update.attention.project_value, levels))
    shift = torch.randint(-3, 4, (FRAMES, 2, *SIZES[0])) if is_shifted else None
    updated = update(queries(z, points), points, SIZES[0], values, rows_of(points.frame), shift)
    for row, (frame, y, x) in enumerate(torch.stack(points, 1).tolist()):
        grids = [levels[level][source].permute(1, 2, 0) for level, source in enumerate(rows_of(frame))]
        moved = shift[frame, :, y, x].tolist() if is_shifted else (0, 0)
        wanted = written_out.update_point(update, z[frame], y, x, grids, moved)
        torch.testing.assert_close(updated[row], wanted, atol=1e-5, rtol=0)
        assert (wanted - z[frame, :, y, x]).abs().max() > 0.1


def test_sparse_is_dense_at_the_same_points(update):
    z, levels = torch.randn(FRAMES, DIM, *SIZES[0]).double(), projected_levels()
    values = list(map(update.attention.project_value, levels))
    everywhere, some = all_points(), random_points(90)
    dense = update(queries(z, everywhere), everywhere, SIZES[0], values, rows_of(everywhere.frame))
    sparse = update(queries(z, some), some, SIZES[0], values, rows_of(some.frame))
    height, width = SIZES[0]
    torch.testing.assert_close(sparse, dense[(some.frame * height + some.y) * width + some.x])
    assert (sparse != queries(z, some)).any(-1).all()


def test_the_update_leaves_its_input_alone(update):
    points = random_points(10)
    query = torch.randn(10, DIM).double()
    before = query.clone()
    values = list(map(update.attention.project_value, projected_levels()))
    update(query, points, SIZES[0], values, rows_of(points.frame))
    assert torch.equal(query, before)


def test_values_may_be_projected_after_sampling(update):
    points, query = random_points(30), torch.randn(30, DIM).double()
    attention = update.attention
    projected, rows = projected_levels(), rows_of(points.frame)
    maps = list(map(attention.project_value, projected))
    unprojected = [UnprojectedLevel(x, attention.value.weight, attention.value.bias) for x in projected]
    wanted = update(query, points, SIZES[0], maps, rows)
    torch.testing.assert_close(update(query, points, SIZES[0], unprojected, rows), wanted)
    torch.testing.assert_close(update(query, points, SIZES[0], [*unprojected[:2], *maps[2:]], rows), wanted)


def test_a_level_becomes_what_costs_less(update):
    """Few points in a wide grid spare the value map; many points in a coarse grid of many channels do not."""
    attention = SparseUpdate(256, heads=8, points=4, ffn_dim=8).attention
    fine, coarse = torch.randn(1, 32, 120, 160), torch.randn(1, 256, 15, 20)
    weight, bias = torch.randn(256, 256), torch.randn(256)
    assert isinstance(attention.level(fine, weight[:, :32], bias, count=1920), UnprojectedLevel)
    value_map = attention.level(coarse, weight, bias, count=1920)
    wanted = torch.einsum("dc,schw->shwd", weight, coarse) + bias
    torch.testing.assert_close(value_map.flatten(3), wanted, atol=1e-4, rtol=1e-4)


def test_the_untrained_update_is_the_identity():
    torch.manual_seed(0)
    update = SparseUpdate(DIM, HEADS, POINTS, ffn_dim=10)
    query, points = torch.randn(50, DIM), random_points(50)
    values = list(map(update.attention.project_value, projected_levels(torch.float32)))
    assert torch.equal(update(query, points, SIZES[0], values, rows_of(points.frame)), query)


@torch.inference_mode()
def test_many_points_are_updated_as_few_are():
    torch.manual_seed(0)
    update = SparseUpdate(DIM, HEADS, POINTS, ffn_dim=10)
    randomise(update)
    count = 2 * BLOCK_POINTS + 3
    query, drawn = torch.randn(count, DIM), torch.randint(300, (count,))
    points = Points(*(x[drawn] for x in random_points(300)))
    values = list(map(update.attention.project_value, projected_levels(torch.float32)))
    together = update(query, points, SIZES[0], values, rows_of(points.frame))
    one_half = [x[: BLOCK_POINTS // 2] for x in (query, *points)]
    alone = update(one_half[0], Points(*one_half[1:]), SIZES[0], values, rows_of(one_half[1]))
    torch.testing.assert_close(together[: len(alone)], alone, atol=1e-5, rtol=1e-5)
    last = [x[-7:] for x in (query, *points)]
    alone = update(last[0], Points(*last[1:]), SIZES[0], values, rows_of(last[1]))
    torch.testing.assert_close(together[-7:], alone, atol=1e-5, rtol=1e-5)


def test_the_update_has_the_size_that_the_paper_leaves_room_for():
    """0.7 M in the paper; MSDA, FFN(1024) and two norms at D 256."""
    with torch.device("meta"):
        update = SparseUpdate(256, heads=8, points=4, ffn_dim=1024)
    assert sum(p.numel() for p in update.parameters()) == pytest.approx(0.76e6, rel=0.01)


def test_gradients_of_the_update():
    torch.manual_seed(0)
    update = SparseUpdate(4, heads=2, points=1, ffn_dim=5).double()
    randomise(update)
    names = [name for name, _ in update.named_parameters()]
    query = torch.randn(3, 4).double().requires_grad_()
    values = [torch.randn(2, *size, 2, 2).double().requires_grad_() for size in ((2, 3), (1, 2), (1, 1), (1, 1))]
    points = Points(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1]), torch.tensor([2, 0, 1]))

    def updated(query, *tensors):
        parameters = dict(zip(names, tensors[4:], strict=True))
        return functional_call(update, parameters, (query, points, (2, 3), tensors[:4], [points.frame] * 4))

    assert torch.autograd.gradcheck(updated, (query, *values, *update.parameters()), fast_mode=True)
