"""Labels without full-size logits against argmax of the resized logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from written_out import assert_best_labels, enlarge

from tfcseg.model import label_map
from tfcseg.model.label_map import labels_from_logits


def assert_are_best(labels, logits, size):
    assert labels.shape == (len(logits), *size)
    assert_best_labels(labels, logits)


def random_logits(seed, batch, classes, grid, smoothness=1):
    """Noise, or with a higher ``smoothness`` regions of one class like those of pictures."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, classes, *(-(-side // smoothness) for side in grid), generator=generator)
    return enlarge(coarse, grid)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 3),
    classes=st.integers(1, 150),
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 61), st.integers(1, 61)),
    smoothness=st.integers(1, 6),
)
def test_labels_are_the_argmax_of_the_resized_logits(seed, batch, classes, grid, size, smoothness):
    logits = random_logits(seed, batch, classes, grid, smoothness)
    assert_are_best(labels_from_logits(logits, size), logits, size)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(1, 6),
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_ties_go_to_one_of_the_best(seed, classes, grid, size):
    values = torch.randint(-1, 2, (2, classes, *grid), generator=torch.Generator().manual_seed(seed)).float()
    assert_are_best(labels_from_logits(values, size), values, size)


@pytest.mark.parametrize("size", [(67, 101), (120, 216), (30, 54), (11, 7), (1, 1), (30, 200), (200, 5)])
def test_enlarging_and_shrinking_at_odd_sizes(size):
    logits = random_logits(0, 2, 31, (30, 54), smoothness=5)
    labels = labels_from_logits(logits, size)
    assert_are_best(labels, logits, size)
    if min(size) > 1:
        assert len(labels.unique()) > 5


def test_at_its_own_size_it_is_the_argmax():
    logits = random_logits(0, 2, 9, (13, 17))
    assert torch.equal(labels_from_logits(logits, (13, 17)), logits.argmax(1).to(torch.uint8))


def test_constant_logits_are_the_first_class():
    logits = torch.full((2, 5, 6, 8), 0.3)
    assert not labels_from_logits(logits, (25, 33)).any()


def test_a_class_that_leads_nowhere_on_the_grid_can_lead_between():
    """Between a cell of class 0 and one of class 1, class 2 may come first: the short cut must not miss it."""
    logits = torch.tensor([[10.0, 0.0], [0.0, 10.0], [8.0, 8.0]]).view(1, 3, 1, 2)
    assert labels_from_logits(logits, (1, 9)).flatten().tolist() == [0, 0, 0, 2, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("chunk_values", [1, 7 * 31, 1000, 31 * 5000])
def test_chunks_do_not_matter(monkeypatch, chunk_values):
    logits = random_logits(0, 2, 31, (5, 7), smoothness=2)
    whole = labels_from_logits(logits, (17, 22))
    monkeypatch.setattr(label_map, "CHUNK_VALUES", chunk_values)
    assert torch.equal(labels_from_logits(logits, (17, 22)), whole)


def test_the_layout_of_logits_does_not_matter():
    logits = random_logits(0, 2, 12, (9, 13), smoothness=2)
    wanted = labels_from_logits(logits, (40, 50))
    assert torch.equal(labels_from_logits(logits.contiguous(memory_format=torch.channels_last), (40, 50)), wanted)
    assert torch.equal(labels_from_logits(logits.flip(3).contiguous().flip(3), (40, 50)), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_resized_in_single(dtype):
    """In half precision itself neighbouring pixels would share their logits."""
    logits = random_logits(0, 1, 12, (9, 13), smoothness=2).to(dtype)
    assert torch.equal(labels_from_logits(logits, (80, 99)), labels_from_logits(logits.float(), (80, 99)))


def test_logits_in_training_have_labels_too():
    logits = random_logits(0, 1, 5, (6, 7), smoothness=2)
    wanted = labels_from_logits(logits, (20, 30))
    assert torch.equal(labels_from_logits(logits.requires_grad_(), (20, 30)), wanted)


def test_the_last_class_of_255_fits():
    logits = torch.zeros(1, 255, 2, 2)
    logits[:, 254] = 1
    assert (labels_from_logits(logits, (5, 5)) == 254).all()
