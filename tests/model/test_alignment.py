"""Aligned correlation: every position is looked up where it was in the keyframe."""

import pytest
import torch

from tfcseg.model.alignment import (
    BLOCKS,
    COLOUR_PENALTY,
    DISTANCE_PENALTY,
    STRIP,
    find_shift,
    match_scores,
    move,
    near_cosines,
    near_scores,
    place_by_pixels,
    refine,
    surroundings,
)


def textured(batch=1, channels=6, size=(14, 16), seed=0):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved_by(keyframe, dy, dx):
    """What the camera sees after everything moved: position (y, x) shows what was at (y + dy, x + dx)."""
    return keyframe.roll((-dy, -dx), (2, 3))


@pytest.mark.parametrize("move_by", [(2, -1), (0, 3), (-3, -3), (1, 0), (-8, 9), (7, -8)])
def test_a_moved_scene_is_found_where_it_was(move_by):
    keyframe = textured(channels=40, size=(36, 40))
    # What moves as a whole is smooth at stride 16: the search begins there.
    keyframe = torch.nn.functional.avg_pool2d(keyframe, 5, stride=1, padding=2)
    shift = find_shift(keyframe, moved_by(keyframe, *move_by))
    inside = shift.cells[0, :, 26:-26, 26:-26]
    # Cells at stride 4 are half as large. The parabola may add half a cell at stride 8, and where blocks of odd
    # motion look alike the search may be off by a whole one.
    for axis, wanted in enumerate(move_by):
        error = (inside[axis] - 2 * wanted).abs()
        assert (error <= 1).float().mean() > 0.9
        assert error.max() <= 4
        if wanted == 0:
            assert (error == 0).float().mean() > 0.9


def test_rows_are_the_cells():
    keyframe = textured(batch=2)
    current = torch.cat([moved_by(keyframe[:1], 1, 2), keyframe[:1], moved_by(keyframe[1:], -2, 0), keyframe[1:]])
    shift = find_shift(keyframe, current)
    assert shift.cells.any()
    rows = shift.rows.view(4, 28, 32)
    for t, y, x in ((0, 0, 0), (0, 12, 17), (0, 27, 31), (1, 5, 6), (2, 3, 30), (3, 27, 0)):
        dy, dx = shift.cells[t, :, y, x].tolist()
        wanted = (t // 2, min(max(y + dy, 0), 27), min(max(x + dx, 0), 31))
        assert rows[t, y, x] == (wanted[0] * 28 + wanted[1]) * 32 + wanted[2]


def test_coarse_rows_are_half_as_far():
    keyframe = textured()
    shift = find_shift(keyframe, moved_by(keyframe, 2, -4))
    rows = shift.coarse_rows.view(14, 16)
    assert (rows[4:-4, 6:-6] == torch.arange(14 * 16).view(14, 16)[6:-2, 2:-10]).float().mean() > 0.9


def test_a_still_scene_has_no_shift():
    assert find_shift(textured(), textured()) is None


def test_flat_regions_do_not_wander():
    flat = torch.ones(1, 6, 14, 16)
    assert find_shift(flat, flat * 3) is None


def test_scores_are_smoothed_cosines_less_the_distance():
    keyframe = torch.nn.functional.normalize(textured(batch=2, size=(5, 6)), dim=1)
    current = torch.nn.functional.normalize(textured(batch=4, size=(5, 6), seed=1), dim=1)
    scores = match_scores(keyframe, current, 3, 0.01).reshape(4, 7, 7, 5, 6)

    def cosine(t, y, x, dy, dx):
        if not (0 <= y < 5 and 0 <= x < 6 and 0 <= y + dy < 5 and 0 <= x + dx < 6):
            return 0.0
        return (current[t, :, y, x] @ keyframe[t // 2, :, y + dy, x + dx]).item()

    for t, y, x, dy, dx in ((0, 2, 3, 0, 0), (1, 2, 2, 1, -2), (2, 0, 0, 2, 3), (3, 4, 5, -3, -1), (3, 1, 4, -1, 3)):
        around = [cosine(t, y + i, x + j, dy, dx) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        wanted = sum(around) / 9 - 0.01 * (dy**2 + dx**2) ** 0.5
        assert scores[t, dy + 3, dx + 3, y, x].item() == pytest.approx(wanted, abs=1e-12)


def unit(batch, seed, size):
    return torch.nn.functional.normalize(textured(batch=batch, seed=seed, size=size), dim=1)


def test_strips_of_columns_are_compared_as_the_whole_map_is():
    height, width = 5, 2 * STRIP + 5
    keyframe, current = unit(2, 0, (height, width)), unit(6, 1, (height, width))
    padded = torch.nn.functional.pad(keyframe, (3,) * 4).repeat_interleave(3, 0)
    steps = [(y, x) for y in range(7) for x in range(7)]
    cosines = [(current * padded[..., y : y + height, x : x + width]).sum(1) for y, x in steps]
    penalty = 0.01 * (torch.tensor(steps, dtype=torch.float64) - 3).norm(dim=1).view(-1, 1, 1)
    wanted = torch.nn.functional.avg_pool2d(torch.stack(cosines, 1), 3, 1, 1) - penalty
    torch.testing.assert_close(match_scores(keyframe, current, 3, 0.01), wanted, rtol=0, atol=1e-12)


def test_many_blocks_are_compared_as_few_are():
    height, width = 12, 48
    keyframe, current = unit(2, 0, (height, width)), unit(4, 1, (height, width))
    near = torch.randint(-8, 9, (4, 2, 6, 24), generator=torch.Generator().manual_seed(2))
    assert near[:, 0].numel() > 4 * BLOCKS
    every = torch.einsum("tcp,tcq->tpq", current.flatten(2), keyframe.flatten(2).repeat_interleave(2, 0))
    there = near.repeat_interleave(2, 2).repeat_interleave(2, 3)
    wanted = []
    for i, j in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
        y, x = torch.arange(height)[:, None] + there[:, 0] + i, torch.arange(width) + there[:, 1] + j
        rows = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        wanted.append(every.gather(2, rows.view(4, -1, 1)).view(4, height, width) * inside)
    torch.testing.assert_close(near_cosines(keyframe, current, near), torch.stack(wanted, 1), rtol=0, atol=1e-12)


def test_near_scores_are_the_same_around_a_displacement():
    """At one displacement for the whole picture, both searches average the same cosines."""
    keyframe = torch.nn.functional.normalize(textured(batch=2), dim=1)
    current = torch.nn.functional.normalize(textured(batch=4, seed=1), dim=1)
    everywhere = match_scores(keyframe, current, 6, DISTANCE_PENALTY).reshape(4, 13, 13, 14, 16)
    for dy, dx in ((0, 0), (-4, 2), (5, -5)):
        near = torch.tensor([dy, dx]).view(1, 2, 1, 1).expand(4, 2, 7, 8)
        scores = near_scores(near_cosines(keyframe, current, near), near).reshape(4, 3, 3, 14, 16)
        torch.testing.assert_close(scores, everywhere[:, dy + 5 : dy + 8, dx + 5 : dx + 8])


def test_every_block_is_compared_at_its_own_displacement():
    keyframe = torch.nn.functional.normalize(textured(size=(6, 8)), dim=1)
    current = torch.nn.functional.normalize(textured(size=(6, 8), seed=1), dim=1)
    near = torch.randint(-3, 4, (1, 2, 3, 4), generator=torch.Generator().manual_seed(2))
    scores = near_scores(near_cosines(keyframe, current, near), near).reshape(3, 3, 6, 8)

    def cosine(y, x, i, j):
        dy, dx = (near[0, :, y // 2, x // 2] + torch.tensor([i, j])).tolist()
        if not (0 <= y + dy < 6 and 0 <= x + dx < 8):
            return 0.0
        return (current[0, :, y, x] @ keyframe[0, :, y + dy, x + dx]).item()

    for y, x, i, j in ((2, 3, 0, 0), (1, 1, -1, 1), (4, 6, 1, -1), (3, 4, 1, 1)):
        around = [cosine(y + a, x + b, i, j) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        distance = (near[0, :, y // 2, x // 2] + torch.tensor([i, j])).double().norm().item()
        wanted = sum(around) / 9 - DISTANCE_PENALTY * distance
        assert scores[i + 1, j + 1, y, x].item() == pytest.approx(wanted, abs=1e-6)


def peak(y, x, *, near):
    """Nine scores of a 2×2 block that fall off as a parabola from (y, x), and where the block was found."""
    steps = torch.arange(-1.0, 2.0)
    scores = -((near[0] + steps[:, None] - y) ** 2) - (near[1] + steps[None, :] - x) ** 2
    scores = scores.view(1, 9, 1, 1).expand(1, 9, 2, 2)
    return scores, torch.tensor(near).view(1, 2, 1, 1), scores.argmax(dim=1)


@pytest.mark.parametrize(
    ("found", "near", "cells"),
    [((1.45, -1.8), (1, -2), [3, -4]), ((-1.1, 0.4), (-1, 0), [-2, 1]), ((4.4, 6.0), (4, 6), [9, 12])],
)
def test_parabolas_place_moving_positions_to_half_a_cell(found, near, cells):
    assert (refine(*peak(*found, near=near)) == torch.tensor(cells).view(1, 2, 1, 1)).all()


def test_what_did_not_move_by_a_cell_stays():
    assert not refine(*peak(0.45, -0.45, near=(0, 0))).any()
    assert not refine(*peak(0.1, 0.0, near=(1, -1))).any()


def test_the_edge_of_the_window_is_not_refined():
    assert refine(*peak(3.4, -1.6, near=(2, -2))).flatten(2)[0, :, 0].tolist() == [6, -3]


def test_moving_takes_from_where_it_was():
    keyframe = torch.arange(12.0).view(1, 1, 3, 4)
    rows = torch.tensor([5, 4, 3, 2, *range(4, 12)] + [11] * 12)
    moved = move(keyframe, rows, 2)
    assert moved[0, 0].flatten().tolist() == [5, 4, 3, 2, *range(4, 12)]
    assert (moved[1] == 11).all()


def test_without_a_shift_every_frame_sees_its_keyframe():
    keyframe = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    assert move(keyframe, None, 4).flatten().tolist() == [1, 1, 2, 2]


def test_the_choice_is_not_trained():
    keyframe = textured().requires_grad_()
    assert not find_shift(keyframe, moved_by(keyframe, 0, 2)).cells.requires_grad


def picture(seed=0, height=12, width=16):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_colours_place_what_moved_by_one_position():
    """Two frames, one moved by a row and a column, the other still: every position from where it was."""
    scene = picture(width=17, height=13)
    keyframe, moved = scene[..., 1:, 1:], scene[..., :-1, :-1]
    rows = place_by_pixels(None, surroundings(keyframe), torch.cat([moved, keyframe])).rows.view(2, 12, 16)
    here = torch.arange(12 * 16).view(12, 16)
    assert torch.equal(rows[0, 1:, 1:], here[:-1, :-1])
    assert torch.equal(rows[1], here)
    assert place_by_pixels(None, surroundings(keyframe), keyframe).difference.max() == 0
    # At the edge, neighbours outside of the picture are its own edge.
    assert rows.min() >= 0
    assert rows.max() < 12 * 16


def test_colours_correct_a_match_by_at_most_one_position():
    scene = picture(width=20)
    keyframe, moved = scene[..., :16], scene[..., 3:19]  # moved by three columns
    columns = (torch.arange(16) + 2).clamp(max=15).repeat(12) + 16 * torch.arange(12).repeat_interleave(16)
    found = place_by_pixels(columns, surroundings(keyframe), moved).rows.view(12, 16) % 16
    assert torch.equal(found[:, :12], (torch.arange(12) + 3).expand(12, 12))


def test_surroundings_are_the_colours_around():
    scene = picture(width=7, height=5)
    padded = torch.nn.functional.pad(scene, (1,) * 4, mode="replicate")
    around = torch.nn.functional.unfold(padded, 3).view(3, 9, 35).transpose(1, 2)
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.equal(surroundings(scene.contiguous(memory_format=layout)), around)
    assert surroundings(scene.half()).dtype == torch.float32


def test_places_are_where_the_mean_difference_is_least():
    """Of several frames of an odd size, anywhere in the keyframe."""
    keyframe, frames = picture(0, 5, 7).double(), torch.cat([picture(seed, 5, 7).double() for seed in (1, 2)])
    rows = torch.randint(35, (70,), generator=torch.Generator().manual_seed(3))
    found = place_by_pixels(rows, surroundings(keyframe), frames)
    y, x = (rows // 7).view(2, 5, 7), (rows % 7).view(2, 5, 7)
    scores, places = [], []
    for i, j in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
        there = (y + i).clamp(0, 4) * 7 + (x + j).clamp(0, 6)
        moved = keyframe.view(3, 35)[:, there.view(-1)].view(3, 2, 5, 7).transpose(0, 1)
        mean = torch.nn.functional.avg_pool2d((moved - frames).abs().mean(1), 3, 1, 1)
        scores.append(mean + COLOUR_PENALTY * (i * i + j * j) ** 0.5)
        places.append(there)
    least, best = torch.stack(scores).min(0)
    assert torch.equal(found.rows, torch.stack(places).gather(0, best[None]).flatten())
    torch.testing.assert_close(found.difference[:, 0], least, rtol=0, atol=1e-7)


def test_noise_below_the_penalty_moves_nothing():
    flat = torch.full((1, 3, 6, 8), 0.5)
    faint = flat + COLOUR_PENALTY / 2 * picture(1, 6, 8)
    assert place_by_pixels(None, surroundings(flat), flat).rows is None
    assert place_by_pixels(None, surroundings(faint), flat).rows is None
    strong = flat + 20 * COLOUR_PENALTY * picture(1, 6, 8)
    assert place_by_pixels(None, surroundings(strong), flat).rows is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_colours_place_in_half_precision_too(dtype):
    scene = picture(width=17).to(dtype)
    found = place_by_pixels(None, surroundings(scene[..., 1:]), scene[..., :-1]).rows.view(12, 16) % 16
    assert (found[:, 1:] == torch.arange(15)).float().mean() > 0.95


def test_where_all_colours_are_as_different_nothing_moves_in_half_precision():
    """The penalty is less than a step of bfloat16 there."""
    black, white = torch.full((1, 3, 6, 8), -2.0), torch.full((1, 3, 6, 8), 2.5)
    assert place_by_pixels(None, surroundings(black.bfloat16()), white.bfloat16()).rows is None
