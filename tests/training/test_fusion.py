"""Several teachers and masks teach one student: what the labels are, position by position."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.helpers.media import run_ffmpeg
from tests.helpers.tiny_teacher import GREEN, RED, write_teacher
from tfcseg.errors import DataError
from tfcseg.labels.label_sets import ADE31, CITYSCAPES19, NO_CLASS, SCENES, VOC21
from tfcseg.training import foreground
from tfcseg.training.distilled import distilled_material
from tfcseg.training.fusion import (
    Meanings,
    follow_mask,
    fuse_media,
    fuse_street,
    fuse_teachers,
    grid_mask,
    is_street,
    to_bytes,
)
from tfcseg.training.labelling import find_media, label_media
from tfcseg.training.recipes import recipe_options
from tfcseg.training.teachers import GRID, taught_labels
from tfcseg.training.truth import is_mask, read_meanings, truth_of

KNOWN = (20, 200, 30)
"""A colour that both tiny teachers call their class 2."""


def ade(**shares):
    return _row(ADE31.names, shares)


def voc(**shares):
    return _row(VOC21, shares)


def _row(names, shares):
    row = np.zeros(len(names), np.uint8)
    for name, share in shares.items():
        row[names.index(name)] = round(255 * share)
    return row


def shares_of(soft):
    """{class: share} of what is not 0, to be compared with plain numbers."""
    return {SCENES.names[i]: pytest.approx(float(soft[i]), abs=0.01) for i in np.nonzero(soft)[0]}


def fused(scene, things, cells=40):
    """Fused labels in the middle of a square of so many cells that the teachers see like this, on sky."""
    grids = [np.tile(row, (64, 64, 1)) for row in (ade(sky=1), voc(background=1))]
    first = 32 - cells // 2
    for grid, row in zip(grids, (scene, things), strict=True):
        grid[first : first + cells, first : first + cells] = row
    soft = fuse_teachers(*grids)
    assert soft.shape == (64, 64, len(SCENES))
    assert shares_of(soft[2, 2]) == {"sky": 1}
    return shares_of(soft[32, 32])


# ---------------------------------------------------------------------------------------------------- two kinds of eyes


def test_the_scene_is_ade20ks_where_voc_sees_background():
    assert fused(ade(road=0.7, sidewalk=0.3), voc(background=1.0)) == {"road": 0.7, "sidewalk": 0.3}


def test_a_sure_animal_beats_the_person_that_ade20k_takes_it_for():
    assert fused(ade(person=0.9, floor=0.1), voc(dog=0.9, background=0.1)) == {"floor": 0.01, "dog": 0.99}


def test_voc_tells_animals_from_persons_even_if_it_is_unsure_that_there_is_one():
    assert fused(ade(person=0.8, grass=0.2), voc(dog=0.2, cat=0.1, person=0.1, background=0.7)) == {
        "person": 0.8 * 0.25 * 0.7,
        "grass": 0.2 * 0.7,
        "dog": 0.8 * 0.5 * 0.7 + 0.2,
        "cat": 0.8 * 0.25 * 0.7 + 0.1,
    }
    assert fused(ade(person=1.0), voc(dog=0.5, background=0.5)) == {"dog": 1.0}, "no contradiction"
    assert fused(ade(person=1.0), voc(dog=0.15, background=0.85)) == {"person": 0.85, "dog": 0.15}


def test_a_doubted_thing_in_a_firm_scene_has_no_label():
    assert fused(ade(sky=0.9, tree=0.1), voc(bird=0.5, background=0.5)) == {}


def test_a_doubted_thing_in_a_doubted_scene_is_shared_out():
    assert fused(ade(other=0.5, wall=0.5), voc(bird=0.5, background=0.5)) == {"other": 0.25, "wall": 0.25, "bird": 0.5}


def test_what_both_know_takes_the_mean():
    assert fused(ade(sofa=0.2, armchair=0.8), voc(sofa=1.0)) == {"sofa": 0.6, "armchair": 0.4}


def test_a_person_that_voc_does_not_see_stays_a_person():
    """It misses small ones."""
    assert fused(ade(person=0.8, wall=0.2), voc(background=1.0)) == {"person": 0.8, "wall": 0.2}


def test_a_person_is_no_television():
    assert fused(ade(person=0.8, wall=0.2), voc(tvmonitor=0.9, background=0.1)) == {}


def test_shares_never_exceed_one():
    rng = np.random.default_rng(0)
    scene, things = (rng.dirichlet(np.full(n, 0.2), (20, 30)) * 255 for n in (len(ADE31), len(VOC21)))
    soft = fuse_teachers(scene.astype(np.uint8), things.astype(np.uint8))
    assert soft.min() >= 0
    assert soft.sum(-1).max() <= 1.01
    assert to_bytes(soft).dtype == np.uint8


# --------------------------------------------------------------------------------------------------------------- masks


def meanings(*classes):
    meant = Meanings(np.zeros((256, len(SCENES)), np.bool_), np.zeros(256, np.intp))
    for value, names in enumerate(classes):
        numbers = [SCENES.index(name) for name in names]
        meant.allowed[value, numbers] = True
        meant.main[value] = next(iter(numbers), 0)
    return meant


def followed(soft, *classes, value=1):
    row = _row(SCENES.names, soft).astype(np.float32) / 255
    result = follow_mask(row[None, None], np.array([[value]], np.uint8), meanings(*classes))[0, 0]
    return shares_of(result)


def test_a_mask_of_one_class_needs_no_teacher():
    assert followed({"wall": 1.0}, (), ("cow",)) == {"cow": 1.0}


def test_a_mask_of_several_classes_lets_the_teachers_choose_among_them():
    soft = {"tree": 0.2, "grass": 0.2, "wall": 0.6}
    assert followed(soft, (), ("tree", "plant", "grass")) == {"tree": 0.5, "grass": 0.5}


def test_where_teachers_see_little_of_what_is_right_the_main_class_takes_the_rest():
    assert followed({"wall": 1.0}, (), ("door", "building", "house")) == {"door": 1.0}
    assert followed({"wall": 0.8, "building": 0.2}, (), ("door", "building", "house")) == {"door": 0.8, "building": 0.2}
    assert followed({"wall": 0.1, "building": 0.9}, (), ("door", "building", "house")) == {"building": 1.0}


def test_people_before_what_a_mask_knows_stay_people():
    """Masks of a set without a name for people run through them; one that names cars is believed about cars."""
    assert followed({"person": 0.7, "building": 0.3}, (), ("building",)) == {"person": 0.7, "building": 0.3}
    assert followed({"car": 0.7, "building": 0.3}, (), ("building",), ("car",)) == {"building": 1.0}
    assert followed({"person": 0.3, "building": 0.7}, (), ("building",)) == {"building": 1.0}
    assert followed({"person": 1.0}, (), ("cow",)) == {"cow": 1.0}, "a thing itself"


@pytest.mark.parametrize("value", [0, 7, NO_CLASS])
def test_where_a_mask_says_nothing_the_teachers_do(value):
    assert followed({"wall": 1.0}, (), ("cow",), value=value) == {"wall": 1.0}


def test_a_grid_cell_on_an_edge_is_left_open():
    mask = np.zeros((9, 9), np.uint8)
    mask[:, :3] = 3
    mask[3:6, 3:6] = 9
    mask[:3, 3:6] = [[3, 3, 3], [3, 3, 0], [0, 0, 0]]  # five of nine
    mask[6:, 3:6] = [[3, 3, 3], [3, 3, 3], [0, 0, 0]]  # six of nine
    for enlarged in (mask, np.kron(mask, np.ones((5, 5), np.uint8))):
        assert grid_mask(enlarged, 3).tolist() == [[3, NO_CLASS, 0], [3, 9, 0], [3, 3, 0]]


def write_set(root, names, values, *, part="train", classes_in_part=False):
    """A labelled set of one picture in KNOWN's colour; its mask's left half is values[0], its right half values[1]."""
    folder = root / part
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    image = np.full((60, 80, 3), KNOWN[::-1], np.uint8)
    mask = np.full((60, 80), values[1], np.uint8)
    mask[:, :40] = values[0]
    cv2.imwrite(str(folder / "images" / "one.png"), image)
    cv2.imwrite(str(folder / "masks" / "one.png"), mask)
    (folder if classes_in_part else root).joinpath("classes.json").write_text(json.dumps(names))
    return folder / "images" / "one.png"


@pytest.mark.parametrize("in_part", [False, True])
def test_masks_are_found_beside_the_images(tmp_path, in_part):
    image = write_set(tmp_path, {"0": "void", "4": "cow", "5": "vegetation"}, (4, 5), classes_in_part=in_part)
    truth = truth_of(image)
    assert truth.mask == tmp_path / "train" / "masks" / "one.png"
    classes, main = read_meanings(truth.classes)
    assert [SCENES.names[i] for i in np.nonzero(classes[4])[0]] == ["cow"]
    assert [SCENES.names[i] for i in np.nonzero(classes[5])[0]] == ["tree", "grass", "plant"]
    assert [SCENES.names[main[value]] for value in (4, 5)] == ["cow", "tree"]
    assert not classes[0].any()


@pytest.mark.parametrize(
    ("names", "meant"),
    [({"3": "road", "7": "pavement"}, {"road"}), ({"3": "road", "7": "cow"}, {"road", "sidewalk", "floor"})],
)
def test_a_set_without_pavement_calls_all_paved_ground_road(tmp_path, names, meant):
    classes = read_meanings(truth_of(write_set(tmp_path, names, (3, 7))).classes).allowed
    assert {SCENES.names[i] for i in np.nonzero(classes[3])[0]} == meant


def test_masks_are_not_trained_on(tmp_path):
    image = write_set(tmp_path, {"4": "cow"}, (4, 0))
    assert is_mask(truth_of(image).mask)
    assert find_media([tmp_path]) == [image]


def test_an_image_without_class_names_has_no_mask(tmp_path):
    image = write_set(tmp_path, {"4": "cow"}, (4, 0))
    (tmp_path / "classes.json").unlink()
    assert truth_of(image) is None


@pytest.mark.parametrize("names", [{"four": "cow"}, {"256": "cow"}, {"4": 4}])
def test_class_files_that_make_no_sense_are_named(tmp_path, names):
    image = write_set(tmp_path, names, (4, 0))
    with pytest.raises(DataError, match=r"classes\.json: .* is not a class id from 0 to 255 with a name"):
        read_meanings(truth_of(image).classes)


def test_a_mask_in_colour_is_refused(tmp_path, teachers):
    image = write_set(tmp_path / "set", {"4": "cow"}, (4, 0))
    cv2.imwrite(str(truth_of(image).mask), np.zeros((60, 80, 3), np.uint8))
    scene, things = (label_media([image], [path], tmp_path / "cache") for path in teachers)
    with pytest.raises(DataError, match=r"one\.png' is a PNG of 8-bit RGB colour; masks are palette or 8-bit"):
        fuse_media(scene, things, tmp_path / "cache")


# ---------------------------------------------------------------------------------------------------------- everything


@pytest.fixture
def teachers(tmp_path):
    return write_teacher(tmp_path / "ade.tflite"), write_teacher(tmp_path / "voc.tflite", classes=len(VOC21))


def test_media_are_labelled_by_both_and_by_masks(tmp_path, teachers):
    image = write_set(tmp_path / "set", {"4": "cow"}, (4, 0))
    video = tmp_path / "clip.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "color=0x14c81e:s=64x64:r=15:d=0.4", "-pix_fmt", "yuv420p", str(video))
    scene, things = (label_media([image, video], [path], tmp_path / "cache") for path in teachers)
    still, clip = fuse_media(scene, things, tmp_path / "cache")
    labels = np.load(still.labels)
    assert labels.shape == (GRID, GRID, len(SCENES))
    assert labels[GRID // 2, 10].argmax() == SCENES.index("cow"), "what the mask says"
    # The tiny teachers call this colour ADE31's and VOC's class 2: VOC is sure of its own.
    assert (ADE31.names[GREEN], VOC21[GREEN]) == ("building", "bicycle")
    assert labels[GRID // 2, -10].argmax() == SCENES.index("bicycle")
    frames = np.load(clip.labels)
    assert frames.shape == (len(clip.frames), GRID, GRID, len(SCENES))
    assert (frames[:, 5:-5, 5:-5].argmax(-1) == SCENES.index("bicycle")).all()


def test_fusing_is_done_once_and_again_when_a_mask_changes(tmp_path, teachers):
    image = write_set(tmp_path / "set", {"4": "cow", "5": "sheep"}, (4, 0))
    scene, things = (label_media([image], [path], tmp_path / "cache") for path in teachers)
    first = fuse_media(scene, things, tmp_path / "cache")[0].labels
    written_ns = first.stat().st_mtime_ns
    assert fuse_media(scene, things, tmp_path / "cache")[0].labels == first
    assert first.stat().st_mtime_ns == written_ns
    cv2.imwrite(str(truth_of(image).mask), np.full((60, 80), 5, np.uint8))
    second = fuse_media(scene, things, tmp_path / "cache")[0].labels
    assert second != first
    assert np.load(second)[5, 5].argmax() == SCENES.index("sheep")


def test_the_student_learns_what_its_teachers_know(tmp_path, teachers):
    scene, things = teachers
    assert taught_labels([scene]) is ADE31
    assert taught_labels([scene, things]) is SCENES
    assert taught_labels([things, scene]) is SCENES
    with pytest.raises(DataError, match=r"voc\.tflite knows Pascal VOC's objects only; add one of ADE20K's 32 classes"):
        taught_labels([things])
    odd = write_teacher(tmp_path / "odd.tflite", classes=7)
    with pytest.raises(DataError, match=r"odd\.tflite has 7 classes, not ADE20K's 32, Pascal VOC's 21 or Cityscapes'"):
        taught_labels([scene, odd])


def test_material_of_several_teachers_shows_masks_and_rare_classes_more_often(tmp_path, teachers, monkeypatch):
    for kind in ("RAILING", "POLE", "SEATS", "DOOR", "OBJECT", "PEOPLE", "PLANT"):  # they have labels of their own
        monkeypatch.setattr(foreground, f"{kind}_SHARE", 0.0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        cv2.imwrite(str(photos / f"{i}.png"), np.full((60, 80, 3), (30, 30, 200), np.uint8))
    image = write_set(tmp_path / "set", {"4": "cow"}, (4, 4))
    options = recipe_options("image", supervised=False, given={"steps": 200, "batch": 1, "crop": 64})
    material = distilled_material([photos, image.parent], teachers[::-1], tmp_path / "cache", options)
    train, _ = material.streams(options)
    assert material.labels is SCENES
    assert material.description == "distilled from voc, ade on 3 photos, 1 of them with masks drawn by people"
    soft = [train[i].labels[0].float().mean((1, 2)) for i in range(200)]
    assert all(labels.shape == (len(SCENES),) for labels in soft)
    # Red is class 1 of both tiny teachers.
    assert (ADE31.names[RED], VOC21[RED]) == ("wall", "aeroplane")
    names = [SCENES.names[int(labels.argmax())] for labels in soft]
    assert set(names) == {"airplane", "cow"}
    # The one photo of a cow has a mask: √3 · 1.5 against twice √1.5; so have collages with two cows of four.
    assert 91 < names.count("cow") < 133, "about 56 %"


def test_a_video_without_a_frame_that_decodes_is_told(tmp_path, teachers):
    """Its header is sound, what follows is not."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        cv2.imwrite(str(photos / f"{i}.png"), np.full((60, 80, 3), (30, 30, 200), np.uint8))
    video = photos / "clip.mp4"
    lavfi = ("-f", "lavfi", "-i", "color=0x14c81e:s=64x64:r=15:d=0.4", "-pix_fmt", "yuv420p", "-movflags", "+faststart")
    run_ffmpeg(*lavfi, str(video))
    content = video.read_bytes()
    start = content.index(b"mdat") + 4
    video.write_bytes(content[:start] + bytes(len(content) - start))
    options = recipe_options("image", supervised=False, given={"steps": 2, "batch": 1, "crop": 64})
    job = ([photos], teachers[:1], tmp_path / "cache", options)
    with pytest.raises(DataError, match=r"clip\.mp4: no frame could be decoded"):
        distilled_material(*job)
    material = distilled_material(*job, skip_bad=True)
    assert material.left_out == [f"{video}: no frame could be decoded from its beginning"]


def test_a_damaged_mask_is_told_before_anything_is_labelled(tmp_path, teachers):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        cv2.imwrite(str(photos / f"{i}.png"), np.full((60, 80 + i, 3), (30, 30, 200), np.uint8))
    image = write_set(tmp_path / "set", {"4": "cow"}, (4, 4))
    cv2.imwrite(str(truth_of(image).mask), np.zeros((60, 80, 3), np.uint8))
    options = recipe_options("image", supervised=False, given={"steps": 2, "batch": 1, "crop": 64})
    job = ([photos, image.parent], teachers, tmp_path / "cache", options)
    with pytest.raises(
        DataError, match=r"one\.png' is a PNG of 8-bit RGB colour; .*; repair them or train with --skip"
    ):
        distilled_material(*job)
    assert not (tmp_path / "cache").exists()
    (defect,) = distilled_material(*job, skip_bad=True).left_out
    assert defect.startswith(f"{image}: mask ")
    distilled_material(*job[:1], teachers[:1], *job[2:])  # a teacher of ADE20K's classes alone makes no use of masks


def test_the_street_teacher_is_asked_about_streets_only(tmp_path, teachers):
    """The tiny teachers call red wall (ADE31) and sidewalk (Cityscapes): a red picture is no street."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        cv2.imwrite(str(photos / f"{number}.png"), np.full((60 + number, 80, 3), (30, 30, 200), np.uint8))
    city = write_teacher(tmp_path / "city.tflite", classes=len(CITYSCAPES19))
    options = recipe_options("image", supervised=False, given={"steps": 2, "batch": 1, "crop": 64})
    material = distilled_material([photos], (*teachers, city), tmp_path / "cache", options)
    assert material.labels is SCENES
    assert len(list((tmp_path / "cache" / "stills").glob("*.npy"))) == 4, "two teachers, two photos"


def test_streets_need_a_teacher_of_things(tmp_path, teachers):
    city = write_teacher(tmp_path / "city.tflite", classes=len(CITYSCAPES19))
    assert taught_labels([*teachers, city]) is SCENES
    with pytest.raises(DataError, match="needs one of Pascal VOC's; add one"):
        taught_labels([teachers[0], city])


def street_of(**shares):
    """Cityscapes' teacher (1, 1, C) that is sure of so much."""
    said = np.zeros((1, 1, len(CITYSCAPES19)), np.uint8)
    for name, share in shares.items():
        said[..., CITYSCAPES19.index(name.replace("_", " "))] = round(255 * share)
    return said


def scene_of(**shares):
    fused = np.zeros((1, 1, len(SCENES)), np.float32)
    for name, share in shares.items():
        fused[..., SCENES.index(name)] = share
    return fused


def test_a_street_is_said_by_three_teachers_alike():
    mixed = fuse_street(scene_of(road=0.4, sidewalk=0.6), street_of(road=1.0))
    assert mixed[0, 0, SCENES.index("road")] == pytest.approx(0.4 * 2 / 3 + 1 / 3)
    assert mixed.sum() == pytest.approx(1)


def test_vegetation_is_what_the_others_see_of_it():
    mixed = fuse_street(scene_of(grass=0.3, tree=0.1, sky=0.6), street_of(vegetation=1.0))
    grass, tree = (mixed[0, 0, SCENES.index(name)] for name in ("grass", "tree"))
    assert grass == pytest.approx(0.3 * 2 / 3 + 0.75 / 3, abs=2e-3)
    assert tree == pytest.approx(0.1 * 2 / 3 + 0.25 / 3, abs=2e-3)
    assert fuse_street(scene_of(sky=1.0), street_of(vegetation=1.0))[0, 0, SCENES.index("tree")] > 0.33


def test_what_only_streets_have_is_cityscapes_to_say():
    mixed = fuse_street(scene_of(building=1.0), street_of(traffic_light=0.8, building=0.2))
    assert mixed[0, 0, SCENES.index("traffic light")] == pytest.approx(0.8, abs=2e-3)
    assert mixed.sum() == pytest.approx(1, abs=1e-3)


def test_a_pole_counts_for_more_than_its_teacher_dares_to_say():
    mixed = fuse_street(scene_of(building=1.0), street_of(pole=0.4, building=0.6))
    assert shares_of(mixed[0, 0]) == pytest.approx({"pole": 0.57, "building": 0.43}, abs=0.01)  # 0.8 / (0.8 + 0.6)
    assert shares_of(fuse_street(scene_of(sky=1.0), street_of(pole=0.9))[0, 0]) == pytest.approx({"pole": 1.0})


def test_where_the_others_contradict_each_other_the_street_teacher_decides():
    mixed = fuse_street(scene_of(), street_of(car=1.0))
    assert mixed[0, 0].argmax() == SCENES.index("car")
    assert mixed.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"road": 0.1, "sky": 0.9}, True),
        ({"car": 0.2}, True),
        ({"grass": 1.0}, False),
        ({"road": 0.2, "floor": 0.4}, False),
    ],
)
def test_streets_are_paved_and_outside(shares, expected):
    scene = np.zeros((8, 8, len(ADE31)), np.uint8)
    for name, share in shares.items():
        scene[..., ADE31.index(name)] = round(255 * share)
    assert is_street(scene) is expected
