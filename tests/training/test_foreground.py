"""Railings, poles and objects put in front of photos, with their labels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tfcseg.labels.label_sets import SCENES
from tfcseg.training import foreground
from tfcseg.training.foreground import Photo, add_foreground

SIDE = 256
GREEN, BLUE = (20, 230, 20), (20, 20, 230)
WALL, FLOOR, TREE, FENCE = (SCENES.index(name) for name in ("wall", "floor", "tree", "fence"))
KINDS = {
    "RAILING": "fence",
    "POLE": "pole",
    "SEATS": "chair",
    "DOOR": "door",
    "OBJECT": "person",
    "PEOPLE": "person",
    "PLANT": "plant",
}
Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def scene() -> Labelled:
    """A floor below a wall, of the same green, which nothing that is drawn has."""
    soft = np.zeros((SIDE // 4, SIDE // 4, len(SCENES)), np.uint8)
    soft[: SIDE // 8, :, WALL] = 255
    soft[SIDE // 8 :, :, FLOOR] = 255
    return np.full((SIDE, SIDE, 3), GREEN, np.uint8), soft


def donor() -> Labelled:
    """A red person in the middle of a black image."""
    return showing("person")


def showing(name: str) -> Labelled:
    """The same with a thing of another class."""
    image, soft = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE // 4, SIDE // 4, len(SCENES)), np.uint8)
    image[64:192, 96:160] = 255, 0, 0
    soft[..., WALL] = 255
    soft[16:48, 24:40] = 255 * np.eye(len(SCENES), dtype=np.uint8)[SCENES.index(name)]
    return image, soft


def trees() -> Labelled:
    """A blue image of trees alone."""
    soft = np.zeros((SIDE // 4, SIDE // 4, len(SCENES)), np.uint8)
    soft[..., TREE] = 255
    return np.full((SIDE, SIDE, 3), BLUE, np.uint8), soft


def put(rng: np.random.Generator, image: NDArray[np.uint8], soft: NDArray[np.uint8]) -> None:
    """Add foreground; the donor of objects and people is the same."""
    sources = {"draw_people": donor, "draw_plants": lambda: showing("plant"), "draw_backdrop": trees}
    add_foreground(Photo(rng, image, soft), draw_donor=donor, **sources)


def changed_cells(image: NDArray[np.uint8], by: int = 0) -> NDArray[np.bool_]:
    """Whether any pixel of a cell (4×4) of a once green image has changed by more than ``by``, (s, s)."""
    return (np.abs(image - np.array(GREEN, float)) > by).any(-1).reshape(SIDE // 4, 4, SIDE // 4, 4).any((1, 3))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One kind of thing, which every photo gets; the others never come."""
    for name in KINDS:
        monkeypatch.setattr(foreground, f"{name}_SHARE", float(name == request.param))
    for name in ("BEHIND_SEATS", "BACKDROP_SHARE", "PLINTH_SHARE"):
        monkeypatch.setattr(foreground, name, 0.0)
    return str(request.param)


def test_labels_are_where_the_image_changed(kind: str) -> None:
    label = SCENES.index(KINDS[kind])
    seen = 0
    for seed in range(40):
        (image, soft), (_, before) = scene(), scene()
        put(np.random.default_rng(seed), image, soft)
        is_new = soft.argmax(-1) == label
        relabelled = (soft != before).any(-1)
        seen += is_new.any()
        assert set(np.unique(soft.argmax(-1))) <= {WALL, FLOOR, label}
        assert (soft.sum(-1, dtype=int) >= 253).all()  # still probabilities, up to rounding
        if kind in ("POLE", "OBJECT", "PEOPLE", "PLANT"):  # labels of the others also cover what is seen through them
            assert changed_cells(image)[relabelled].all()
        # Whatever was drawn is labelled, but for faint edges.
        assert not (changed_cells(image, by=12) & ~_grown(relabelled)).any()
    assert seen > 25


def test_the_same_numbers_give_the_same_picture(kind: str) -> None:
    first, second = scene(), scene()
    for image, soft in (first, second):
        put(np.random.default_rng(3), image, soft)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_a_share_of_photos_stays_as_it_is() -> None:
    rng, count = np.random.default_rng(0), 0
    for _ in range(200):
        image, soft = scene()
        put(rng, image, soft)
        count += (image == GREEN).all()
    none = np.prod([1 - getattr(foreground, f"{kind}_SHARE") for kind in KINDS])
    assert abs(count / 200 - none) < 0.15


@pytest.mark.parametrize("drawn", ["RAILING", "DOOR"])
def test_people_of_the_photo_stay_in_front_of_railings_and_doors(drawn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KINDS:
        monkeypatch.setattr(foreground, f"{name}_SHARE", float(name == drawn))
    person, seen = SCENES.index("person"), 0
    for seed in range(20):
        image, soft = scene()
        soft[16:40, 24:40] = 255 * np.eye(len(SCENES), dtype=np.uint8)[person]
        put(np.random.default_rng(seed), image, soft)
        assert (soft[16:40, 24:40].argmax(-1) == person).all()
        assert (image[4 * 16 + 4 : 4 * 40 - 4, 4 * 24 + 4 : 4 * 40 - 4] == GREEN).all()
        seen += (image != GREEN).any()
    assert seen > 10


def test_some_seats_stand_in_front_of_a_railing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KINDS:
        monkeypatch.setattr(foreground, f"{name}_SHARE", float(name == "SEATS"))
    found = []
    for seed in range(40):
        image, soft = scene()
        put(np.random.default_rng(seed), image, soft)
        found.append({SCENES.index("chair"), SCENES.index("fence")} <= set(np.unique(soft.argmax(-1)).tolist()))
    assert 8 < sum(found) < 30


def test_another_photo_is_seen_behind_some_railings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KINDS:
        monkeypatch.setattr(foreground, f"{name}_SHARE", float(name == "RAILING"))
    found = []
    for seed in range(40):
        image, soft = scene()
        put(np.random.default_rng(seed), image, soft)
        labels, is_blue = soft.argmax(-1), (image == BLUE).all(-1)
        found.append(is_blue.any())
        cells = is_blue.reshape(SIDE // 4, 4, SIDE // 4, 4)
        # Above the railing the label is that of the photo, behind its bars "fence".
        assert np.isin(labels[cells.all((1, 3))], (TREE, FENCE)).all()
        assert changed_cells(image)[labels == TREE].all()
        assert (labels == FENCE).any() or not is_blue.any()
    assert 8 < sum(found) < 30


def test_some_railings_stand_on_a_low_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KINDS:
        monkeypatch.setattr(foreground, f"{name}_SHARE", float(name == "RAILING"))
    monkeypatch.setattr(foreground, "BACKDROP_SHARE", 0.0)
    found = 0
    for seed in range(40):
        image, soft = scene()
        put(np.random.default_rng(seed), image, soft)
        labels = soft.argmax(-1)
        is_plinth = (labels == WALL) & (np.arange(SIDE // 4) >= SIDE // 8)[:, None]  # here was floor
        found += is_plinth.any()
        # It is opaque, and the railing stands on it.
        assert changed_cells(image)[is_plinth].all()
        assert not is_plinth.any() or (labels == FENCE).any()
    assert 3 < found < 30


def _grown(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(area, 2)
    rows, columns = area.shape
    moved = [padded[y : y + rows, x : x + columns] for y in range(5) for x in range(5)]
    return np.any(moved, axis=0)
