"""What training sees: numbered samples, views of clips, and the frames of a VSPW folder that can be trained on."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from tests.helpers import vspw_fixture as vspw
from tfcseg.errors import DataError
from tfcseg.evaluation.vspw import open_vspw
from tfcseg.training.datasets import (
    ClipSource,
    CollageSource,
    PseudoClipSource,
    Sample,
    SampleStream,
    StillSource,
    Weighted,
)
from tfcseg.training.distilled import folder_weights
from tfcseg.training.labelling import Taught, defect_of
from tfcseg.training.supervised import VspwClipSource, find_sound_frames

CLASSES, CROP = 5, 64


class NumberSource:
    """Draws random numbers, so that samples can be told apart."""

    def __init__(self, first: int) -> None:
        self.first = first

    def draw(self, rng):
        return Sample(torch.tensor([self.first + int(rng.integers(1000))]), torch.zeros(1))


def write_frames(folder, count, *, distinct=True):
    """Frames whose brightness is their number, and labels whose class is their number."""
    folder.mkdir(parents=True)
    paths = []
    for n in range(count):
        value = 20 + 20 * n if distinct else 120
        paths.append(folder / f"{n:05d}.png")
        cv2.imwrite(str(paths[-1]), np.full((90, 120, 3), value, np.uint8))
    labels = np.zeros((count, 128, 128, count), np.uint8)
    for n in range(count):
        labels[n, ..., n if distinct else 0] = 255
    np.save(folder / "labels.npy", labels)
    return Taught(folder / "clip.mp4", folder / "labels.npy", tuple(paths))


def write_still(folder, number):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    np.save(folder / f"{number}.npy", rng.integers(0, 52, (128, 128, CLASSES), dtype=np.uint8))
    return Taught(folder / f"{number}.png", folder / f"{number}.npy")


def numbers_of(sample):
    """Which frame of `write_frames` each frame of a sample is, by its labels."""
    seen = sample.labels.amax((2, 3)) > 200
    assert (seen.sum(1) == 1).all()
    return seen.int().argmax(1).tolist()


# -------------------------------------------------------------------------------------------------------------- stream


def test_a_number_always_gives_the_same_sample():
    sources = [NumberSource(0), NumberSource(1000)]
    one = SampleStream(sources, [1, 1], count=50, seed=3)
    other = SampleStream(sources, [1, 1], count=50, seed=3)
    # Whatever was asked for before.
    backwards = {n: other[n].images.item() for n in reversed(range(50))}
    assert [one[n].images.item() for n in range(50)] == [backwards[n] for n in range(50)]
    assert len(set(backwards.values())) > 40
    assert len(one) == 50


def test_another_seed_gives_other_samples():
    streams = [SampleStream([NumberSource(0)], [1], count=20, seed=seed) for seed in (0, 1)]
    assert [streams[0][n].images.item() for n in range(20)] != [streams[1][n].images.item() for n in range(20)]


def test_sources_are_drawn_by_their_shares():
    stream = SampleStream([NumberSource(0), NumberSource(1000)], [30.0, 10.0], count=400, seed=0)
    share = np.mean([stream[n].images.item() >= 1000 for n in range(400)])
    assert 0.18 < share < 0.32


# ------------------------------------------------------------------------------------------------------------- weights


def test_folders_are_drawn_by_their_weights(tmp_path):
    """Of nested folders the innermost counts, and what is in none counts as 1."""
    halls, far = tmp_path / "halls", tmp_path / "halls" / "far"
    paths = [tmp_path / "a.jpg", halls / "b.jpg", far / "c.jpg", tmp_path / "halls2" / "d.jpg"]
    folders = [(str(halls), 3.0), (str(far), 0.5)]
    assert folder_weights(paths, folders).tolist() == [1, 3, 0.5, 1]
    assert folder_weights(paths, [*reversed(folders)]).tolist() == [1, 3, 0.5, 1]
    assert folder_weights(paths, []).tolist() == [1, 1, 1, 1]
    drawn = Weighted(paths, folder_weights(paths, folders))
    rng = np.random.default_rng(0)
    counts = [sum(drawn.draw(rng) == path for _ in range(2200)) for path in paths]
    assert np.abs(np.array(counts) / 400 - [1, 3, 0.5, 1]).max() < 0.2


def test_a_still_without_weight_is_never_drawn(tmp_path):
    stills = [write_still(tmp_path, 0), Taught(tmp_path / "missing.png", tmp_path / "missing.npy")]
    source = StillSource(Weighted(stills, np.array([1.0, 0.0])), CROP)
    for seed in range(5):
        source.draw(np.random.default_rng(seed))


def test_clips_that_are_too_short_take_their_weights_with_them(tmp_path):
    clips = [write_frames(tmp_path / name, count) for name, count in (("short", 2), ("one", 5), ("other", 6))]
    source = ClipSource(clips, CROP, 4, np.array([9.0, 0.0, 1.0]))
    assert all(max(numbers_of(source.draw(np.random.default_rng(seed)))) < 6 for seed in range(5))
    assert any(max(numbers_of(source.draw(np.random.default_rng(seed)))) == 5 for seed in range(20))


# ----------------------------------------------------------------------------------------------------- stills and clips


def test_a_collage_shows_four_views_at_half_their_size(tmp_path):
    stills = StillSource(Weighted([write_still(tmp_path, n) for n in range(3)]), CROP)
    views = (stills.draw(rng) for rng in [np.random.default_rng(1)] for _ in range(4))
    collage = CollageSource(stills).draw(np.random.default_rng(1))
    for number, view in enumerate(views):
        for whole, part in zip(collage, view, strict=True):
            assert (whole.shape, whole.dtype) == (part.shape, part.dtype)
            side = part.shape[-1] // 2
            shown = whole[..., side * (number // 2) :, side * (number % 2) :][..., :side, :side].float()
            pixels = part.float()
            mean = (
                pixels[..., ::2, ::2] + pixels[..., 1::2, ::2] + pixels[..., ::2, 1::2] + pixels[..., 1::2, 1::2]
            ) / 4
            assert (shown - mean).abs().max() <= 0.5


def test_a_still_is_a_clip_of_one_frame(tmp_path):
    sample = StillSource(Weighted([write_still(tmp_path, n) for n in range(2)]), CROP).draw(np.random.default_rng(0))
    assert sample.images.shape == (1, 3, CROP, CROP)
    assert sample.labels.shape == (1, CLASSES, CROP // 4, CROP // 4)
    assert sample.images.dtype == sample.labels.dtype == torch.uint8
    assert sample.images.is_contiguous()


def test_clips_are_runs_in_either_direction_with_one_step(tmp_path):
    source = ClipSource([write_frames(tmp_path / "clip", 9)], CROP, 4)
    steps = set()
    for seed in range(40):
        numbers = numbers_of(source.draw(np.random.default_rng(seed)))
        (step,) = set(np.diff(numbers).tolist())
        steps.add(step)
    assert steps == {-2, -1, 1, 2}


def test_frames_and_their_labels_belong_together(tmp_path):
    """The brightest frame has the highest class."""
    source = ClipSource([write_frames(tmp_path / "clip", 9)], CROP, 4)
    for seed in range(10):
        sample = source.draw(np.random.default_rng(seed))
        middle = sample.images[:, :, 24:40, 24:40].float().mean((1, 2, 3))
        assert torch.equal(middle.argsort(), torch.tensor(numbers_of(sample)).argsort())


def test_all_frames_of_a_clip_have_one_view(tmp_path):
    """Equal frames stay equal: geometry and colours are drawn once."""
    clip = write_frames(tmp_path / "clip", 6, distinct=False)
    texture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for path in clip.frames:
        cv2.imwrite(str(path), texture)
    source, views = ClipSource([clip], CROP, 4), set()
    for seed in range(8):
        images, labels = source.draw(np.random.default_rng(seed))
        assert all(torch.equal(image, images[0]) for image in images)
        assert all(torch.equal(label, labels[0]) for label in labels)
        views.add(images[0].numpy().tobytes())
    assert len(views) == 8


def test_short_clips_are_left_out(tmp_path):
    long, short = write_frames(tmp_path / "long", 5), write_frames(tmp_path / "short", 3)
    assert len(ClipSource([short, long], CROP, 4).draw(np.random.default_rng(0)).images) == 4
    with pytest.raises(DataError, match="no video has 4 frames"):
        ClipSource([short], CROP, 4)


def test_pseudo_clips_have_an_interval_of_frames(tmp_path):
    source = PseudoClipSource(Weighted([write_still(tmp_path, n) for n in range(2)]), CROP, 4)
    sample = source.draw(np.random.default_rng(0))
    assert sample.images.shape == (4, 3, CROP, CROP)
    assert sample.labels.shape == (4, CLASSES, CROP // 4, CROP // 4)


# ---------------------------------------------------------------------------------------------------------------- VSPW


@pytest.fixture
def root(tmp_path):
    return vspw.make_vspw(tmp_path / "vspw", {"0_hills": 7, "1_road": 6}, split="train")


def test_vspw_clips_have_hard_labels_of_the_folder(root):
    dataset = open_vspw(root, "train")
    source = VspwClipSource(dataset, find_sound_frames(dataset), 256, 4)
    seen = set()
    for seed in range(6):
        images, labels = source.draw(np.random.default_rng(seed))
        assert images.shape == (4, 3, 256, 256)
        assert labels.shape == (4, 256, 256)
        seen |= set(labels.unique().tolist())
    assert {vspw.SKY - 1, vspw.GRASS - 1, vspw.CAR - 1} < seen <= {*range(len(dataset.labels)), 255}


def test_vspw_clips_follow_the_numbers(root):
    dataset = open_vspw(root, "train")
    sound = find_sound_frames(dataset)
    assert sound.defects == []
    assert [len(run) for run in sound.runs] == [7, 6]
    assert sound.runs[1][0] == (vspw.image_path(root, "1_road", 166), vspw.mask_path(root, "1_road", 166))
    assert [int(image.stem) for image, _ in sound.runs[0]] == list(range(166, 173))


def test_gaps_break_a_run(root):
    vspw.lose_frame(root, "0_hills", 169)
    sound = find_sound_frames(open_vspw(root, "train"))
    assert [len(run) for run in sound.runs] == [3, 3, 6]
    assert sound.defects == [], "frames that were never there are no damage"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: vspw.empty_file(vspw.image_path(root, "0_hills", 169)), "0_hills/00000169: image empty"),
        (lambda root: vspw.empty_file(vspw.mask_path(root, "0_hills", 169)), "0_hills/00000169: mask empty"),
        (lambda root: vspw.cut_file(vspw.image_path(root, "0_hills", 169)), "image the image is cut off"),
        (lambda root: vspw.cut_file(vspw.mask_path(root, "0_hills", 169)), "mask the image is cut off"),
        (lambda root: vspw.mask_path(root, "0_hills", 169).unlink(), "0_hills/00000169: mask missing"),
        (lambda root: vspw.image_path(root, "0_hills", 169).unlink(), "0_hills/00000169: image missing"),
        (lambda root: vspw.make_colour(vspw.mask_path(root, "0_hills", 169)), "is a PNG of 8-bit RGB colour"),
        (lambda root: vspw.claim_size(vspw.mask_path(root, "0_hills", 169)), "mask pictures of 20000x20000 are"),
        (lambda root: vspw.make_smaller(vspw.mask_path(root, "0_hills", 169)), "mask is 51×34, its image 53×36"),
    ],
)
def test_damage_is_named_and_left_out(root, damage, words):
    damage(root)
    sound = find_sound_frames(open_vspw(root, "train"))
    assert [len(run) for run in sound.runs] == [3, 3, 6]
    (defect,) = sound.defects
    assert words in defect


def test_a_missing_video_is_named(root):
    vspw.lose_video(root, "1_road")
    assert find_sound_frames(open_vspw(root, "train")).defects == ["1_road: no frames"]


def test_palette_masks_and_hidden_twins_are_no_damage(root):
    vspw.make_palette(vspw.mask_path(root, "0_hills", 169))
    vspw.add_hidden_twins(root, "1_road")
    sound = find_sound_frames(open_vspw(root, "train"))
    assert sound.defects == []
    assert [len(run) for run in sound.runs] == [7, 6]


def test_too_short_videos_cannot_train_clips(root):
    dataset = open_vspw(root, "train")
    with pytest.raises(DataError, match="no video of split train has 8 labelled frames in a row"):
        VspwClipSource(dataset, find_sound_frames(dataset), CROP, 8)


# -------------------------------------------------------------------------------------------------------------- damage


def test_whole_images_have_no_defect(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for suffix in ("jpg", "png", "bmp", "webp"):
        cv2.imwrite(str(tmp_path / f"a.{suffix}"), image)
        assert defect_of(tmp_path / f"a.{suffix}") is None
    # Cameras append previews and films to their JPEG files.
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"appended" * 10)
    assert defect_of(tmp_path / "a.jpg") is None


def test_damaged_images_are_recognised(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((30, 40, 3), np.uint8))
    data = (tmp_path / "a.jpg").read_bytes()
    for name, content in {"cut.jpg": data[:-40], "empty.jpg": b"", "text.jpg": b"a letter, not a picture"}.items():
        (tmp_path / name).write_bytes(content)
        assert defect_of(tmp_path / name)
    assert defect_of(tmp_path / "missing.jpg") == "cannot be read (No such file or directory)"
