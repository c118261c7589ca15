"""Labels without full-size logits against argmax of the resized logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.written_out import assert_best_labels, enlarge
from tfcseg.model.ops import labelling
from tfcseg.model.ops.labelling import labels_from_logits


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


@pytest.fixture
def resized_pixels(monkeypatch):
    """How many pixels had all their logits resized."""
    found = []
    bags = torch.nn.functional.embedding_bag

    def counted(indices, *args, **kwargs):
        found.append(len(indices))
        return bags(indices, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "embedding_bag", counted)
    return lambda: sum(found)


def between(first, second):
    """Logits of classes that change from one cell to the next one on its right."""
    return torch.tensor([first, second], dtype=torch.float32).T.reshape(1, len(first), 1, 2)


@pytest.mark.parametrize(
    ("third", "needed"),
    [
        ((4, 4), 0),  # behind the mean of the two
        ((9, -9), 0),  # behind the first alone
        ((-9, 9), 0),
        ((6, 6), 7),  # ahead of both half way
        ((5, 5), 7),  # level with both there: nearer than resizing can tell
        ((10, -9), 7),  # level with the first
    ],
)
def test_two_classes_that_lead_all_others_are_compared_alone(resized_pixels, third, needed):
    logits = between((10, 0, third[0]), (0, 10, third[1]))
    labels = labels_from_logits(logits, (1, 10))
    assert_are_best(labels, logits, (1, 10))
    assert resized_pixels() == needed


def test_most_boundaries_are_between_two_classes(resized_pixels):
    logits = random_logits(3, 1, 6, (40, 40), smoothness=10) * 5
    labels = labels_from_logits(logits, (160, 160))
    assert_are_best(labels, logits, (160, 160))
    assert 0 < resized_pixels() < 0.2 * labels.numel()


def test_of_three_classes_at_a_cell_none_is_forgotten(resized_pixels):
    logits = torch.zeros(1, 4, 2, 2)
    for label, (y, x) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        logits[0, label, y, x] = 1
    labels = labels_from_logits(logits, (4, 4))
    assert labels[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert resized_pixels() == 9


@pytest.mark.parametrize(
    ("limit", "value"),
    [*(("CHUNK_VALUES", n) for n in (1, 7 * 31, 1000, 31 * 5000)), ("PIXELS", 1), ("PIXELS", 100)],
)
def test_chunks_do_not_matter(monkeypatch, limit, value):
    logits = random_logits(0, 2, 31, (5, 7), smoothness=2)
    whole = labels_from_logits(logits, (17, 22))
    monkeypatch.setattr(labelling, limit, value)
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


def test_double_precision_stays():
    logits = random_logits(0, 1, 12, (9, 13), smoothness=2)
    assert torch.equal(labels_from_logits(logits.double(), (80, 99)), labels_from_logits(logits, (80, 99)))


def test_logits_in_training_have_labels_too():
    logits = random_logits(0, 1, 5, (6, 7), smoothness=2)
    wanted = labels_from_logits(logits, (20, 30))
    assert torch.equal(labels_from_logits(logits.requires_grad_(), (20, 30)), wanted)


def test_the_last_class_of_255_fits():
    logits = torch.zeros(1, 255, 2, 2)
    logits[:, 254] = 1
    assert (labels_from_logits(logits, (5, 5)) == 254).all()
