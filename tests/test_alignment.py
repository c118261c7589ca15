"""Aligned correlation: every position is looked up where it was in the keyframe."""

import pytest
import torch

from tfcseg.model.alignment import DISTANCE_PENALTY, REACH, Shift, find_shift, match_scores, move, refine

SIDE = 2 * REACH + 1


def textured(batch=1, channels=6, size=(14, 16), seed=0):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved_by(keyframe, dy, dx):
    """What the camera sees after everything moved: position (y, x) shows what was at (y + dy, x + dx)."""
    return keyframe.roll((-dy, -dx), (2, 3))


@pytest.mark.parametrize("move_by", [(2, -1), (0, 3), (-3, -3), (1, 0)])
def test_a_moved_scene_is_found_where_it_was(move_by):
    keyframe = textured()
    shift = find_shift(keyframe, moved_by(keyframe, *move_by), (28, 32))
    inside = shift.cells[0, :, 10:-10, 10:-10]
    # Cells at stride 4 are half as large; the parabola may add half a cell at stride 8.
    for axis, wanted in enumerate(move_by):
        assert (inside[axis] - 2 * wanted).abs().max() <= 1
        if wanted == 0 or abs(wanted) == REACH:
            assert (inside[axis] == 2 * wanted).all()


def test_rows_are_the_cells():
    keyframe = textured(batch=2)
    current = torch.cat([moved_by(keyframe[:1], 1, 2), keyframe[:1], moved_by(keyframe[1:], -2, 0), keyframe[1:]])
    shift = find_shift(keyframe, current, (28, 32))
    rows = shift.rows.view(4, 28, 32)
    for t, y, x in ((0, 0, 0), (0, 12, 17), (0, 27, 31), (1, 5, 6), (2, 3, 30), (3, 27, 0)):
        dy, dx = shift.cells[t, :, y, x].tolist()
        wanted = (t // 2, min(max(y + dy, 0), 27), min(max(x + dx, 0), 31))
        assert rows[t, y, x] == (wanted[0] * 28 + wanted[1]) * 32 + wanted[2]


def test_a_still_scene_has_no_shift():
    assert find_shift(textured(), textured(), (28, 32)) is None


def test_flat_regions_do_not_wander():
    flat = torch.ones(1, 6, 14, 16)
    assert find_shift(flat, flat * 3, (28, 32)) is None


def test_scores_are_smoothed_cosines_less_the_distance():
    keyframe = torch.nn.functional.normalize(textured(batch=2, size=(5, 6)), dim=1)
    current = torch.nn.functional.normalize(textured(batch=4, size=(5, 6), seed=1), dim=1)
    scores = match_scores(keyframe, current).view(4, SIDE, SIDE, 5, 6)
    assert scores.shape[0] == 4

    def cosine(t, y, x, dy, dx):
        if not (0 <= y < 5 and 0 <= x < 6 and 0 <= y + dy < 5 and 0 <= x + dx < 6):
            return 0.0
        return (current[t, :, y, x] @ keyframe[t // 2, :, y + dy, x + dx]).item()

    for t, y, x, dy, dx in ((0, 2, 3, 0, 0), (1, 2, 2, 1, -2), (2, 0, 0, 2, 3), (3, 4, 5, -3, -1), (3, 1, 4, -1, 3)):
        around = [cosine(t, y + i, x + j, dy, dx) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        wanted = sum(around) / 9 - DISTANCE_PENALTY * (dy**2 + dx**2) ** 0.5
        assert scores[t, dy + REACH, dx + REACH, y, x].item() == pytest.approx(wanted, abs=1e-12)


def peak(y, x, *, at):
    """Scores (1, S·S, 1, 1) that fall off as a parabola from (y, x), and their best whole cell."""
    steps = torch.arange(-REACH, REACH + 1.0)
    scores = -((steps[:, None] - y) ** 2) - (steps[None, :] - x) ** 2
    best = (at[0] + REACH) * SIDE + at[1] + REACH
    assert scores.flatten().argmax() == best
    return scores.view(1, -1, 1, 1), torch.tensor(best).view(1, 1, 1)


def test_parabolas_place_moving_positions_to_half_a_cell():
    assert refine(*peak(1.45, -1.8, at=(1, -2))).flatten().tolist() == [3, -4]
    assert refine(*peak(-1.1, 0.4, at=(-1, 0))).flatten().tolist() == [-2, 1]


def test_what_did_not_move_by_a_cell_stays():
    assert refine(*peak(0.45, -0.45, at=(0, 0))).flatten().tolist() == [0, 0]


def test_the_edge_of_the_reach_is_not_refined():
    assert refine(*peak(REACH + 2.0, -1.6, at=(REACH, -2))).flatten().tolist() == [2 * REACH, -3]


def test_moving_takes_from_where_it_was():
    keyframe = torch.arange(12.0).view(1, 1, 3, 4)
    rows = torch.tensor([5, 4, 3, 2, *range(4, 12)] + [11] * 12)
    moved = move(keyframe, Shift(rows, torch.zeros(2, 2, 3, 4)), 2)
    assert moved[0, 0].flatten().tolist() == [5, 4, 3, 2, *range(4, 12)]
    assert (moved[1] == 11).all()


def test_without_a_shift_every_frame_sees_its_keyframe():
    keyframe = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    assert move(keyframe, None, 4).flatten().tolist() == [1, 1, 2, 2]


def test_the_choice_is_not_trained():
    keyframe = textured().requires_grad_()
    assert not find_shift(keyframe, moved_by(keyframe, 0, 2), (28, 32)).cells.requires_grad
