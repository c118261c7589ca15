"""A view shows image and labels the same way."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from tfcseg.training.augment import (
    LABEL_STRIDE,
    SHORT_SIDE_RANGE_PX,
    View,
    distort_colours,
    draw_view,
    view_hard_labels,
    view_image,
    view_soft_labels,
)

SOURCE = (240, 320)
GRID = 64
SEEDS = range(12)


def plain_view(seed, size=96, source=SOURCE):
    return View(draw_view(np.random.default_rng(seed), source, size).matrix, size)


def ramps(height, width):
    """(height, width, 2) uint8: x and y of each cell's centre, 0…255 over the picture."""
    x = np.tile((np.arange(width) + 0.5) / width, (height, 1))
    y = np.tile(((np.arange(height) + 0.5) / height)[:, None], (1, width))
    return np.rint(255 * np.stack([x, y], -1)).astype(np.uint8)


def blocks(height, width, side=20):
    """(height, width) class map of a chequered picture with 7 classes."""
    return ((np.arange(height)[:, None] // side * 3 + np.arange(width) // side) % 7).astype(np.uint8)


def moved_view(dx=0.0, dy=0.0, size=96, step=1.0):
    return View(np.array([[step, 0.0, dx], [0.0, step, dy]]), size)


# ----------------------------------------------------------------------------------------------------------- alignment


@pytest.mark.parametrize("seed", SEEDS)
def test_soft_labels_lie_where_the_image_does(seed):
    """Image and labels hold their own position, so the image's cell means must be the labels' values."""
    view = plain_view(seed, size=960)  # larger than the source ever gets: all of it is seen
    image = np.dstack([ramps(*SOURCE), np.full(SOURCE, 255, np.uint8)])
    seen = view_image(image, view).astype(float)
    cells = seen.reshape(view.size // LABEL_STRIDE, LABEL_STRIDE, -1, LABEL_STRIDE, 3).mean((1, 3))
    labels = view_soft_labels(np.dstack([ramps(GRID, GRID), np.full((GRID, GRID), 255, np.uint8)]), SOURCE, view)
    inside = (labels[..., 2] == 255) & (cells[..., 2] == 255)
    assert inside.mean() > 0.1
    difference = (cells[..., :2] - labels[..., :2])[inside]
    assert np.abs(difference).max() < 2.5, "a value is off by more than rounding"
    # Over the whole picture rounding averages out, a shift does not.
    step_px = np.sqrt(abs(np.linalg.det(view.matrix[:, :2])))
    shift_px = difference.mean(0) * (np.array([SOURCE[1], SOURCE[0]]) / 255) / step_px
    assert np.abs(shift_px).max() < 0.1, "labels are shifted against the image"


@pytest.mark.parametrize("seed", SEEDS)
def test_hard_labels_lie_where_the_image_does(seed):
    view = plain_view(seed)
    classes = blocks(*SOURCE)
    image = np.repeat(classes[..., None] * 30 + 5, 3, axis=-1)
    seen, labels = view_image(image, view)[..., 0].astype(int), view_hard_labels(classes, view)
    near = np.ones((9, 9))  # as far as a source pixel may be smeared
    flat = (cv2.erode(labels, near) == cv2.dilate(labels, near)) & (labels != 255)
    flat[[0, 1, 2, 3, -4, -3, -2, -1]] = flat[:, [0, 1, 2, 3, -4, -3, -2, -1]] = False
    assert flat.mean() > 0.15
    assert np.array_equal(seen[flat], labels[flat].astype(int) * 30 + 5)


def test_a_view_of_one_pixel_per_pixel_is_a_cut():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SOURCE, 3), dtype=np.uint8)
    classes = blocks(*SOURCE)
    view = moved_view(40, 60)
    assert np.array_equal(view_image(image, view), image[60:156, 40:136])
    assert np.array_equal(view_hard_labels(classes, view), classes[60:156, 40:136])


def test_soft_labels_of_a_whole_square_are_the_labels():
    labels = np.random.default_rng(0).integers(0, 256, (GRID, GRID, 5), dtype=np.uint8)
    whole = view_soft_labels(labels, (256, 256), moved_view(size=256))
    assert np.array_equal(whole, labels)


def test_soft_labels_of_any_number_of_classes():
    """OpenCV takes 128 channels at most."""
    labels = np.random.default_rng(3).integers(0, 256, (16, 16, 255), np.uint8)
    view = View(np.array([[1.1, 0.2, 3.0], [-0.1, 0.9, 2.0]]), 64)
    found = view_soft_labels(labels, (64, 64), view)
    few = [view_soft_labels(labels[..., k : k + 51].copy(), (64, 64), view) for k in range(0, 255, 51)]
    assert np.array_equal(found, np.concatenate(few, axis=2))
    one_more = view_soft_labels(labels[..., :129].copy(), (64, 64), view)
    assert np.array_equal(one_more[..., :128], found[..., :128])
    assert np.abs(one_more[..., 128].astype(int) - found[..., 128]).max() <= 8  # alone it is interpolated more finely


def test_outside_of_the_source_there_is_no_label():
    view = moved_view(-1000, -1000)
    labels = np.full((GRID, GRID, 3), 255, np.uint8)
    assert not view_soft_labels(labels, SOURCE, view).any()
    assert (view_hard_labels(blocks(*SOURCE), view) == 255).all()
    assert (view_image(np.zeros((*SOURCE, 3), np.uint8), view) == (124, 116, 104)).all()


# ------------------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("seed", SEEDS)
def test_zoom_stays_in_its_range(seed):
    step = np.sqrt(abs(np.linalg.det(plain_view(seed).matrix[:, :2])))
    short_side_px = min(SOURCE) / step
    assert SHORT_SIDE_RANGE_PX[0] - 1e-6 <= short_side_px <= SHORT_SIDE_RANGE_PX[1] + 1e-6


def test_flips_happen_half_of_the_time():
    flipped = [np.linalg.det(plain_view(seed).matrix[:, :2]) < 0 for seed in range(60)]
    assert 15 < sum(flipped) < 45


@pytest.mark.parametrize("source", [(240, 320), (900, 400), (16, 2000)])
def test_a_view_shows_the_source(source):
    """The crop's centre is always inside, however thin the source is."""
    for seed in SEEDS:
        view = plain_view(seed, source=source)
        x, y = view.matrix @ [47.5, 47.5, 1]
        assert -0.5 <= x <= source[1] - 0.5
        assert -0.5 <= y <= source[0] - 0.5


def test_a_large_source_fills_the_crop():
    """Without rotation, nothing outside is shown where the zoomed source is larger than the crop."""
    labels = np.full((GRID, GRID, 1), 255, np.uint8)
    shares = [
        (view_soft_labels(labels, SOURCE, plain_view(seed, size=64)) == 255).mean() for seed in range(30)
    ]  # crop 64 px, source zoomed to 280 px and more
    assert np.mean(shares) > 0.97


# ------------------------------------------------------------------------------------------------------------- colours


def test_colours_change_only_when_strong():
    neutral = View(None, 8)
    for seed in SEEDS:
        weak = plain_view(seed)
        strong = draw_view(np.random.default_rng(seed), SOURCE, 96)
        assert np.array_equal(weak.matrix, strong.matrix), "colours are drawn after the geometry"
        assert dataclasses.replace(weak, matrix=None, size=8) == neutral


def test_every_kind_of_distortion_comes_into_play_and_none_always():
    views = [draw_view(np.random.default_rng(seed), SOURCE, 96) for seed in range(80)]
    neutral = View(np.eye(2, 3), 96)
    for kind in ("brightness", "contrast", "saturation", "hue_shift", "blur_px", "motion_px", "noise", "jpeg_quality"):
        share = np.mean([getattr(view, kind) != getattr(neutral, kind) for view in views])
        assert 0.05 < share < 0.8, kind


def test_a_neutral_view_leaves_colours_alone():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(distort_colours(image, View(np.eye(2, 3), 32)), image)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("brightness", 20.0, (220, 120, 70)),
        ("contrast", 0.5, (164, 114, 89)),
        ("saturation", 0.0, (200, 200, 200)),
        ("hue_shift", 60, (50, 200, 100)),
    ],
)
def test_a_distortion_does_what_it_says(kind, value, expected):
    image = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    view = dataclasses.replace(View(np.eye(2, 3), 4), **{kind: value})
    assert np.abs(distort_colours(image, view)[0, 0].astype(int) - expected).max() <= 2


def test_blur_and_jpeg_lose_detail():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    neutral = View(np.eye(2, 3), 64)
    for change in ({"blur_px": 1.5}, {"motion_px": (3.0, 4.0)}, {"jpeg_quality": 25}):
        view = dataclasses.replace(neutral, **change)
        seen = distort_colours(image, view)
        assert seen.shape == image.shape
        assert seen.astype(float).std() < image.astype(float).std()


@pytest.mark.parametrize(
    ("motion_px", "rows", "columns"),
    [((8.0, 0.0), [20], range(16, 25)), ((0.0, 6.0), range(17, 24), [20]), ((-6.0, 6.0), range(17, 24), range(17, 24))],
)
def test_motion_blur_draws_a_point_as_a_line_around_its_place(motion_px, rows, columns):
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    seen = distort_colours(image, dataclasses.replace(View(np.eye(2, 3), 41), motion_px=motion_px))[..., 0]
    where = np.nonzero(seen)
    assert {*where[0].tolist()} == {*rows}
    assert {*where[1].tolist()} == {*columns}
    assert int(seen.sum(dtype=int)) == pytest.approx(255, abs=len(where[0])), "as bright as before"
    assert [part.mean() for part in where] == [20, 20], "labels stay where things are"


def test_noise_differs_between_frames_but_not_between_calls():
    image = np.full((64, 64, 3), 128, np.uint8)
    view = dataclasses.replace(View(np.eye(2, 3), 64), noise=8.0, noise_seed=1)
    seen, again, other = (distort_colours(frame, view).astype(float) for frame in (image, image, image + 1))
    assert seen.std() == pytest.approx(8, rel=0.05)
    assert seen.mean() == pytest.approx(128, abs=0.5)
    assert np.array_equal(seen, again)
    assert (other - seen).std() == pytest.approx(8 * 2**0.5, rel=0.05), "another pattern"
