"""Views of VSPW frames: SegFormer's numbers, one view for a whole clip, labels where the image is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.helpers import vspw_fixture as vspw
from tfcseg.evaluation.vspw import open_vspw
from tfcseg.training.augment import View, distort_colours, view_hard_labels, view_image
from tfcseg.training.supervised import (
    MOST_OF_ONE_CLASS,
    Sound,
    VspwClipSource,
    crop_view,
    draw_vspw_view,
    find_sound_frames,
)

SOURCE = (120, 214)
CHEQUERS = ((np.arange(SOURCE[0])[:, None] // 12 + np.arange(SOURCE[1]) // 12) % 5).astype(np.uint8)


def views(count, *, labels=CHEQUERS, crop=96, short_side_px=480):
    return [draw_vspw_view(np.random.default_rng(seed), labels, crop, short_side_px) for seed in range(count)]


# ------------------------------------------------------------------------------------------------------------ geometry


def test_scenes_are_resized_by_half_to_double_of_the_size_at_inference():
    scales = np.array([SOURCE[0] / abs(view.matrix[0, 0]) / 480 for view in views(400)])
    assert 0.5 <= scales.min() < 0.53
    assert 1.97 < scales.max() <= 2.0
    # Uniform, and not uniform in its logarithm (mean 1.08).
    assert abs(scales.mean() - 1.25) < 0.08


def test_scenes_are_neither_turned_nor_stretched_and_every_other_one_is_flipped():
    found = [view.matrix[:, :2] for view in views(200)]
    assert all(linear[0, 1] == linear[1, 0] == 0 and abs(linear[0, 0]) == linear[1, 1] for linear in found)
    assert 70 < sum(linear[0, 0] < 0 for linear in found) < 130


@pytest.mark.parametrize("is_flipped", [False, True])
def test_a_crop_at_the_same_size_is_a_cut(is_flipped):
    view = crop_view(SOURCE, 96, SOURCE[0], (1.0, 0.0), is_flipped=is_flipped)
    expected = CHEQUERS[:96, -96:]
    assert np.array_equal(view_hard_labels(CHEQUERS, view), expected[:, ::-1] if is_flipped else expected)


def test_a_resized_crop_is_a_crop_of_the_resized():
    """Half the size, where a pixel's centre lies between four of the source's."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (*SOURCE, 3), dtype=np.uint8), (0, 0), 2)
    expected = cv2.resize(image, (SOURCE[1] // 2, SOURCE[0] // 2), interpolation=cv2.INTER_LINEAR)
    seen = view_image(image, crop_view(SOURCE, 32, SOURCE[0] / 2, (0.0, 0.0), is_flipped=False))
    assert np.abs(seen.astype(int) - expected[:32, :32]).max() <= 1


def test_what_is_smaller_than_the_crop_is_centred_and_has_no_labels_around():
    labels = view_hard_labels(CHEQUERS, crop_view(SOURCE, 128, 60, (0.0, 1.0), is_flipped=False))
    known = labels != 255
    assert known.sum() == 60 * 107
    assert known[34:94, 11:117].all()


def test_crops_of_one_class_are_drawn_again(monkeypatch):
    """A class on most of the picture: crops hold enough of the rest where that can be had."""
    labels = np.zeros(SOURCE, np.uint8)
    labels[:, 150:] = 1

    def varied():
        shares = [np.mean(view_hard_labels(labels, v) == 0) for v in views(60, labels=labels, short_side_px=240)]
        return np.mean([1 - MOST_OF_ONE_CLASS < share < MOST_OF_ONE_CLASS for share in shares])

    drawn_again = varied()
    monkeypatch.setattr("tfcseg.training.supervised.CROP_TRIALS", 1)
    assert drawn_again > 0.7 > 0.5 > varied()


def test_a_scene_of_one_class_is_seen_anyway():
    (view,) = views(1, labels=np.full(SOURCE, 7, np.uint8))
    assert (view_hard_labels(np.full(SOURCE, 7, np.uint8), view) == 7).any()


# -------------------------------------------------------------------------------------------------------------- colours


def test_half_of_the_views_have_each_distortion():
    found = views(400)
    for name, neutral, low, high in (("contrast", 1, 0.5, 1.5), ("saturation", 1, 0.5, 1.5), ("hue_shift", 0, -18, 18)):
        values = np.array([getattr(view, name) for view in found])
        assert 0.4 < np.mean(values != neutral) < 0.6, name
        assert low <= values.min() < low + 0.1 * (high - low), name
        assert high - 0.1 * (high - low) < values.max() <= high, name
    assert {(view.blur_px, view.jpeg_quality) for view in found} == {(0.0, None)}


def test_brightness_comes_before_contrast_which_multiplies():
    """As SegFormer's: (value + brightness) · contrast. A view's own contrast turns around 128."""
    for view in views(40):
        grey = np.full((1, 1, 3), 100, np.uint8)
        seen = float(distort_colours(grey, View(view.matrix, 1, view.brightness, view.contrast))[0, 0, 0])
        added = seen / view.contrast - 100
        assert -34 < added < 34 or seen in {0, 255}


# ---------------------------------------------------------------------------------------------------------------- clips


@pytest.fixture
def dataset(tmp_path):
    return open_vspw(vspw.make_vspw(tmp_path / "vspw", {"long": 14, "short": 5}, split="train"), "train")


def source_of_stems(dataset, **options):
    return VspwClipSource(dataset, find_sound_frames(dataset), 64, 4, **options)


def test_every_clip_of_a_split_has_the_same_chance(dataset, monkeypatch):
    seen: list[str] = []
    read = "tfcseg.training.supervised.read_image"
    monkeypatch.setattr(read, lambda path: seen.append(str(path)) or np.zeros((36, 53, 3), np.uint8))
    source = source_of_stems(dataset)
    for seed in range(390):
        source.draw(np.random.default_rng(seed))
    first = [path.split("data/")[1].replace("/origin/00000", " ").removesuffix(".jpg") for path in seen[::4]]
    clips = {f"long {166 + n}" for n in range(11)} | {f"short {166 + n}" for n in range(2)}
    assert set(first) == clips
    assert all(15 <= first.count(clip) <= 50 for clip in clips)
    numbers = [int(path[-7:-4]) for path in seen]
    assert all(numbers[i : i + 4] == list(range(numbers[i], numbers[i] + 4)) for i in range(0, len(numbers), 4)), (
        "the keyframe is the first, as it is at inference"
    )


def test_validation_sees_scenes_at_their_size_and_in_their_colours(dataset):
    source = source_of_stems(dataset, short_side_px=36, is_augmented=False)
    sample = source.draw(np.random.default_rng(1))
    pictures = [cv2.imread(str(path))[..., ::-1] for path in sorted((dataset.root / "data").glob("*/origin/*.jpg"))]
    # 36×53 in the middle of 64×64 lies half a pixel beside the grid.
    shown = [(picture[:, :-1].astype(int) + picture[:, 1:]) / 2 for picture in pictures]
    frame = sample.images[0].permute(1, 2, 0).numpy()[14:50, 6:58]
    assert min(np.abs(frame - picture).max() for picture in shown) <= 1


def test_runs_that_are_too_short_are_left_out(dataset):
    sound = Sound([run[:3] for run in find_sound_frames(dataset).runs[:1]] + find_sound_frames(dataset).runs[1:], [])
    source = VspwClipSource(dataset, sound, 64, 4)
    assert source.draw(np.random.default_rng(0)).images.shape == (4, 3, 64, 64)
