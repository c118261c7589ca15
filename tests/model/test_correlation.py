"""Eqs 5 to 7 and 11 on tensors small enough to do by hand."""

import pytest
import torch

from tfcseg.model.correlation import inconsistent_points, interpolate, interpolation_weight, per_frame, similarity


def as_map(*vectors):
    """(1, D, 1, N) map of N vectors."""
    return torch.tensor(vectors, dtype=torch.float32).T[None, :, None]


def test_similarity_is_the_cosine_per_position():
    keyframe = as_map((3, 4), (1, 0), (1, 0), (2, 1), (1, 1))
    current = as_map((3, 4), (0, 1), (-1, 0), (1, 2), (1, 0))
    wanted = torch.tensor([1, 0, -1, 4 / 5, 0.5**0.5]).view(1, 1, 1, 5)
    torch.testing.assert_close(similarity(keyframe, current), wanted)


def test_similarity_ignores_the_length_of_vectors():
    keyframe, current = as_map((3, 4), (1, 2)), as_map((4, 3), (2, 1))
    torch.testing.assert_close(similarity(100 * keyframe, 0.01 * current), similarity(keyframe, current))


def test_similarity_to_nothing_is_zero():
    assert similarity(as_map((0, 0)), as_map((1, 0))).item() == 0


def test_similarity_belongs_to_its_own_frame_and_position():
    torch.manual_seed(0)
    keyframe, current = torch.randn(2, 2, 5, 3, 4).double()
    w = similarity(keyframe, current)
    assert w.shape == (2, 1, 3, 4)
    for t, y, x in ((0, 0, 0), (0, 2, 1), (1, 1, 3)):
        a, b = keyframe[t, :, y, x], current[t, :, y, x]
        assert w[t, 0, y, x].item() == pytest.approx((a @ b / (a.norm() * b.norm())).item())


def test_interpolation_weight_is_clamped():
    w = torch.tensor([-1.0, -0.2, 0.0, 0.3, 1.0, 1.0000001])
    assert interpolation_weight(w).tolist() == pytest.approx([0, 0, 0, 0.3, 1, 1])
    assert interpolation_weight(w).max() <= 1


def test_interpolation_by_hand():
    z_k, z_t = torch.tensor([[2.0, 8.0], [0.0, 4.0]]), torch.tensor([[6.0, 0.0], [1.0, 4.0]])
    w_hat = torch.tensor([0.25, 0.75])
    wanted = torch.tensor([[0.25 * 2 + 0.75 * 6, 0.75 * 8], [0.75 * 1, 4.0]])
    # Two channels share the weight of their position.
    z = interpolate(z_k[None, :, None], z_t[None, :, None], w_hat[None, None, None])
    torch.testing.assert_close(z, wanted[None, :, None])


def test_interpolation_ends_at_both_embeddings():
    torch.manual_seed(0)
    z_k, z_t = torch.randn(2, 1, 6, 3, 4)
    assert torch.equal(interpolate(z_k, z_t, torch.zeros(1, 1, 3, 4)), z_t)
    torch.testing.assert_close(interpolate(z_k, z_t, torch.ones(1, 1, 3, 4)), z_k)


def test_interpolation_leaves_equal_embeddings_bit_for_bit():
    torch.manual_seed(0)
    z = torch.randn(2, 6, 3, 4)
    assert torch.equal(interpolate(z, z.clone(), torch.rand(2, 1, 3, 4)), z)


def test_inconsistent_points_lie_strictly_below_the_threshold():
    w = torch.tensor([[[[0.75, 0.5], [0.9, -1.0]]], [[[1.0, 0.75], [0.74, 1.0]]]])
    points = inconsistent_points(w, 0.75)
    assert [tuple(point) for point in torch.stack(points, 1).tolist()] == [(0, 0, 1), (0, 1, 1), (1, 1, 0)]


def test_no_point_is_inconsistent_at_threshold_zero_unless_vectors_oppose():
    w = torch.tensor([[[[0.0, 1.0, -0.5]]]])
    assert inconsistent_points(w, 0.0).x.tolist() == [2]


def test_a_keyframe_serves_the_frames_of_its_own_interval():
    keyframes = torch.tensor([[1.0], [2.0]])
    assert per_frame(keyframes, 6).flatten().tolist() == [1, 1, 1, 2, 2, 2]
    assert per_frame(keyframes, 2) is keyframes
    one = keyframes[:1]
    assert per_frame(one, 3).flatten().tolist() == [1, 1, 1]
    assert per_frame(one, 3).data_ptr() == one.data_ptr()  # no copy
