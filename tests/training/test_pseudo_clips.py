"""Labels of a pseudo-clip are exact: they move with the pixels, whatever moves.

Scenes are black and white, and a pixel's class is its colour; so labels can be read off every frame.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tfcseg.training.pseudo_clips import pseudo_clip

GRID, SIDE, CROP, LENGTH = 128, 512, 96, 4
BLACK, WHITE = 0, 1
SEEDS = range(16)


def labelled(classes):
    """Image (SIDE, SIDE, 3) and soft labels (GRID, GRID, 2) of a (GRID, GRID) map of BLACK and WHITE."""
    image = np.kron(classes, np.full((SIDE // GRID, SIDE // GRID), 255)).astype(np.uint8)
    return np.repeat(image[..., None], 3, -1), (np.eye(2)[classes] * 255).astype(np.uint8)


def blots(seed):
    """Large irregular shapes."""
    noise = np.random.default_rng(seed).normal(size=(GRID, GRID))
    return (cv2.GaussianBlur(noise, (0, 0), 7) > 0).astype(np.int64)


def disc(radius=14):
    """A disc of 4 % of the picture: the background is too large to be cut out, the disc is not."""
    y, x = np.mgrid[:GRID, :GRID] - GRID // 2
    return (np.hypot(x, y) < radius).astype(np.int64)


NOTHING_TO_CUT = labelled(np.zeros((GRID, GRID), np.int64))


def make_clip(seed, scene, donor):
    return pseudo_clip(np.random.default_rng(seed), scene, donor, CROP, LENGTH)


def cell_values(image):
    """(s, s) mean brightness of each label cell."""
    return image.astype(float).mean(-1).reshape(CROP // 4, 4, CROP // 4, 4).mean((1, 3))


def clearly(image):
    """Cells that are white, and cells that are black, together with all of their neighbours."""
    values = cell_values(image)
    near = np.ones((3, 3))
    return cv2.erode(values, near) > 160, cv2.dilate(values, near) < 96


def centre(mask):
    return np.argwhere(mask).mean(0)


# ------------------------------------------------------------------------------------------------------------ exactness


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_follow_camera_and_objects(seed):
    images, soft = make_clip(seed, labelled(blots(seed)), labelled(blots(seed + 100)))
    assert len(images) == len(soft) == LENGTH
    for image, labels in zip(images, soft, strict=True):
        assert image.shape == (CROP, CROP, 3)
        assert labels.shape == (CROP // 4, CROP // 4, 2)
        known = labels.max(-1) > 200
        for clear, label in zip(clearly(image), (WHITE, BLACK), strict=True):
            assert (labels.argmax(-1)[clear & known] == label).all()


def test_most_of_a_clip_is_checked():
    """The test above would pass on a clip that is all edges, or that has no labels."""
    checked = []
    for seed in SEEDS[:8]:
        images, soft = make_clip(seed, labelled(blots(seed)), labelled(blots(seed + 100)))
        for image, labels in zip(images, soft, strict=True):
            white, black = clearly(image)
            checked.append(((white | black) & (labels.max(-1) > 200)).mean())
    assert np.mean(checked) > 0.4


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pasted_object_and_its_label_are_in_the_same_place(seed):
    images, soft = make_clip(seed, labelled(np.zeros((GRID, GRID), np.int64)), labelled(disc()))
    for image, labels in zip(images, soft, strict=True):
        seen = cell_values(image) > 135
        labelled_there = labels[..., WHITE] > 127
        assert abs(int(seen.sum()) - int(labelled_there.sum())) <= max(8, 0.25 * seen.sum())
        if labelled_there.sum() > 12:
            assert np.abs(centre(seen) - centre(labelled_there)).max() < 0.5


# --------------------------------------------------------------------------------------------------------------- motion


def test_objects_are_pasted_in_most_clips_and_move():
    pasted, steps_px = 0, []
    for seed in range(40):
        _, soft = make_clip(seed, labelled(np.zeros((GRID, GRID), np.int64)), labelled(disc()))
        masks = [labels[..., WHITE] > 127 for labels in soft]
        pasted += masks[0].any()
        whole = [mask.any() and not (mask[[0, -1]].any() or mask[:, [0, -1]].any()) for mask in masks]
        steps_px += [
            4 * np.linalg.norm(centre(masks[t + 1]) - centre(masks[t])) for t in range(3) if whole[t] and whole[t + 1]
        ]
    assert 20 <= pasted <= 36, "seven of ten clips"
    assert len(steps_px) >= 15
    assert 4 < np.median(steps_px) < 40


def test_a_third_of_the_cameras_stands_still():
    still = 0
    for seed in range(45):
        images, soft = make_clip(seed, labelled(blots(seed % 5)), NOTHING_TO_CUT)
        if all(np.array_equal(labels, soft[0]) for labels in soft):
            still += 1
            assert max(np.abs(cell_values(image) - cell_values(images[0])).max() for image in images) < 25
    assert 8 <= still <= 22


def test_nothing_is_pasted_without_an_object_of_fitting_size():
    for seed in range(10):
        _, soft = make_clip(seed, labelled(np.zeros((GRID, GRID), np.int64)), NOTHING_TO_CUT)
        assert not any(labels[..., WHITE].any() for labels in soft)


# --------------------------------------------------------------------------------------------------------------- pixels


def test_every_frame_has_noise_of_its_own():
    """Also where nothing moves; strong JPEG compression may remove the little noise of a few clips."""
    scene = (np.full((SIDE, SIDE, 3), 128, np.uint8), NOTHING_TO_CUT[1])
    clips = [make_clip(seed, scene, NOTHING_TO_CUT)[0] for seed in range(20)]
    differ = [all(not np.array_equal(image, images[0]) for image in images[1:]) for images in clips]
    assert np.mean(differ) > 0.8


def test_colours_are_the_same_in_all_frames():
    scene = (np.full((SIDE, SIDE, 3), (150, 120, 90), np.uint8), NOTHING_TO_CUT[1])
    for seed in range(10):
        images, _ = make_clip(seed, scene, NOTHING_TO_CUT)
        medians = [np.median(image, (0, 1)) for image in images]  # at the rim other things may come into view
        assert np.ptp(medians, axis=0).max() <= 3


def test_a_seed_gives_one_clip():
    scene, donor = labelled(blots(1)), labelled(blots(2))
    one, other = make_clip(5, scene, donor), make_clip(5, scene, donor)
    for first, second in zip([*one[0], *one[1]], [*other[0], *other[1]], strict=True):
        assert np.array_equal(first, second)
