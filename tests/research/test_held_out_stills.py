"""Networks on labelled stills: what is read, on which classes networks are compared, and what is written."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version

import numpy as np
import pytest

from tests.helpers.command_line import call
from tests.helpers.still_fixture import paint, paint_mask, write_stills
from tests.helpers.tiny_model import randomise, tiny_card
from tests.helpers.tiny_teacher import write_teacher
from tfcseg.errors import DataError, UsageError
from tfcseg.labels.label_sets import COCO133, FACADES8, NO_CLASS, SCENES
from tfcseg.model.tfc import build_segmenter
from tfcseg.research.networks import student_network, teacher_network
from tfcseg.research.stills import compare_stills, open_stills
from tfcseg.weights.loading import load_model, save_model

FACADES = {name: number for number, name in enumerate(FACADES8, start=1)}
COCO = {name: number for number, name in enumerate(COCO133, start=1)}
BUILDING, SKY, DOOR = FACADES["building"], FACADES["sky"], FACADES["door"]


def write_scenes_model(path):
    """A small random model with the label set scenes."""
    card = tiny_card()
    card = dataclasses.replace(card, labels=SCENES, config=dataclasses.replace(card.config, num_classes=len(SCENES)))
    network = build_segmenter(card.config).eval()
    randomise(network)
    save_model(path, network, card)
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return write_scenes_model(tmp_path_factory.mktemp("model") / "student.safetensors")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """ADE31's: red is wall, green building, blue sky, gray other."""
    return write_teacher(tmp_path_factory.mktemp("teachers") / "ade.tflite")


@pytest.fixture(scope="module")
def things_teacher(tmp_path_factory):
    """VOC's: red is aeroplane, green bicycle, blue bird, gray background."""
    return write_teacher(tmp_path_factory.mktemp("teachers") / "voc.tflite", classes=21)


@pytest.fixture(scope="module")
def facades(tmp_path_factory):
    """Blue sky over a building, of which a quarter is red, not green; below, a strip of doors and one of void."""
    image = paint([["blue"] * 4, ["green", "green", "green", "red"], ["green"] * 4, ["gray"] * 4])
    mask = paint_mask([[SKY] * 4, [BUILDING] * 4, [DOOR] * 4, [0] * 4])
    return write_stills(tmp_path_factory.mktemp("facades") / "test", FACADES, [(image, mask), (image, mask)])


def scores_of(result, name):
    return next(each for each in result.networks if each.network.name == name)


# ------------------------------------------------------------------------------------------------------- what is read


def test_values_of_masks_are_classes_by_name(facades):
    stills = open_stills(facades)
    assert stills.labels.names == FACADES8
    assert stills.name == f"{facades.parent.name}/test"
    image, target = stills.read(stills.stills[0])
    assert image.shape == (64, 96, 3)
    assert [target[y, 0] for y in (8, 24, 40, 56)] == [FACADES8.index(n) for n in ("sky", "building", "door")] + [
        NO_CLASS
    ]


def test_classes_may_lie_in_the_folder_itself_and_have_gaps(tmp_path):
    folder = write_stills(
        tmp_path / "set" / "val", {"sky": 6, "road": 40}, [(paint([["red"]]), paint_mask([[40, 255]]))]
    )
    (folder.parent / "classes.json").rename(folder / "classes.json")
    stills = open_stills(folder)
    assert stills.labels.names == ("sky", "road")
    assert np.unique(stills.read(stills.stills[0])[1]).tolist() == [1, NO_CLASS]


def test_too_fine_classes_are_merged(tmp_path):
    values = [[COCO["wall-brick"], COCO["wall-other-merged"]]]
    stills = open_stills(write_stills(tmp_path / "coco" / "test", COCO, [(paint([["red"]]), paint_mask(values))]))
    _, target = stills.read(stills.stills[0])
    assert np.unique(target).tolist() == [COCO133.index("wall-other-merged")]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "masks").rename(f / "mask"), "has no folder masks; labelled stills have"),
        (lambda f: (f.parent / "classes.json").unlink(), "has no classes.json, also not above"),
        (lambda f: (f.parent / "classes.json").write_text('{"0": "void"}'), "names 0 classes besides void"),
        (lambda f: (f.parent / "classes.json").write_text('{"1": "sky", "2": "sky"}'), "names a class twice"),
        (lambda f: (f.parent / "classes.json").write_text('{"sky": 1}'), "'sky': 1 is not a class id from 0 to 255"),
        (lambda f: (f.parent / "classes.json").write_text('{"256": "sky"}'), "'256': 'sky' is not a class id"),
        (lambda f: (f / "masks" / "0000.png").unlink(), r"0000.png: no such mask \(1 of 1 images have none\)"),
        (lambda f: (f / "images" / "0000.png").unlink(), "has no images"),
    ],
)
def test_folders_that_are_no_sets_are_refused(tmp_path, spoil, message):
    folder = write_stills(tmp_path / "set" / "test", FACADES, [(paint([["red"]]), paint_mask([[1]]))])
    spoil(folder)
    with pytest.raises(DataError, match=message):
        open_stills(folder)


def test_a_value_without_a_name_is_refused(tmp_path):
    stills = open_stills(write_stills(tmp_path / "s" / "t", FACADES, [(paint([["red"]]), paint_mask([[1, 99]]))]))
    with pytest.raises(DataError, match=r"0000.png: value 99 is not named in classes.json"):
        stills.read(stills.stills[0])


# ------------------------------------------------------------------------------------------------------- what is scored


def test_scores_are_the_ones_counted_by_hand(facades, teacher):
    result = compare_stills([facades], models=[], teachers=[teacher])
    score = scores_of(result, "ade").scores[result.sets[0].name]["ade31"]
    # Sky is right. A quarter of the building is called wall, which the set does not have; all doors are called
    # building; void counts nowhere.
    assert score.per_class == pytest.approx({"building": 100 * 0.75 / 2, "door": 0, "sky": 100}, abs=1)
    assert score.miou == pytest.approx((37.5 + 0 + 100) / 3, abs=1)
    assert score.pixel_accuracy == pytest.approx(100 * 1.75 / 3, abs=1)
    assert score.is_complete
    assert result.sets[0].classes == {"ade31": ("building", "door", "sky")}
    assert result.sets[0].stills == 2


def test_truth_that_nobody_could_predict_does_not_count(tmp_path, teacher):
    image = paint([["blue", "green"]])
    masks = [paint_mask([[COCO["sky-other-merged"], COCO[name]]]) for name in ("zebra", "building-other-merged")]
    sets = [write_stills(tmp_path / f"{n}" / "test", COCO, [(image, mask)]) for n, mask in enumerate(masks)]
    result = compare_stills(sets, models=[], teachers=[teacher])
    for each in result.sets:
        assert scores_of(result, "ade").scores[each.name]["ade31"].miou == 100
    assert result.sets[0].classes["ade31"] == ("sky-other-merged",)


def test_every_label_set_is_a_vocabulary(tmp_path, teacher, things_teacher, student):
    """ADE31's teacher sees sky, VOC's the aeroplane in it, and the student knows the names of both."""
    image = paint([["blue", "blue"], ["red", "red"]])
    mask = paint_mask([[COCO["sky-other-merged"]] * 2, [COCO["airplane"], COCO["wall-tile"]]])
    folder = write_stills(tmp_path / "coco" / "test", COCO, [(image, mask)])
    result = compare_stills([folder], [student], [teacher, things_teacher])
    (facts,) = result.sets
    assert facts.classes == {
        "ade31": ("sky-other-merged", "wall-other-merged"),
        "voc21": ("airplane",),
        "scenes": ("airplane", "sky-other-merged", "wall-other-merged"),
    }
    ade, voc, own = (scores_of(result, name).scores["coco/test"] for name in ("ade", "voc", "tiny"))
    assert ade["ade31"].miou == pytest.approx(100, abs=1)  # the airplane, which is wall to it, is void here
    assert ade["scenes"].miou == pytest.approx((0 + 100 + 50) / 3, abs=1)
    assert voc["voc21"].miou == pytest.approx(100, abs=1)
    assert [ade[name].is_complete for name in ("ade31", "voc21", "scenes")] == [True, False, False]
    assert [voc[name].is_complete for name in ("ade31", "voc21", "scenes")] == [False, True, False]
    assert all(score.is_complete for score in own.values())
    means = {each.network.name: each.mean for each in result.networks}
    assert means["ade"]["scenes"] is None
    assert means["ade"]["voc21"] is None
    assert means["tiny"]["scenes"] == own["scenes"].miou


def test_a_student_is_weighed_against_the_best_teacher(facades, teacher, student, tmp_path):
    poor = write_teacher(tmp_path / "poor.tflite", bias=6000)  # to which nearly everything is other
    result = compare_stills([facades], [student], [poor, teacher])
    mean = {each.network.name: each.mean["ade31"] for each in result.networks}
    assert mean["poor"] < mean["ade"]
    share = 100 * mean["tiny"] / mean["ade"]
    assert scores_of(result, "tiny").to_best_teacher == {"ade31": share, "scenes": share}  # the same classes here
    assert scores_of(result, "ade").to_best_teacher == {}


def test_a_student_predicts_as_in_mode_image(facades, student):
    """Scores are those of its own labels, computed here pixel by pixel."""
    result = compare_stills([facades], [student])
    stills = open_stills(facades)
    network = student_network(load_model(student))
    image, target = stills.read(stills.stills[0])
    names = np.array(SCENES.names)[network.predict(image, target.shape)]
    meant = {"building": ("building", "house"), "sky": ("sky",), "door": ("door",)}
    expected = {}
    counted = target != NO_CLASS
    for name, ours in meant.items():
        is_true, is_said = target == FACADES8.index(name), np.isin(names, ours) & counted
        expected[name] = 100 * np.sum(is_true & is_said) / np.sum(is_true | is_said)
    assert result.networks[0].scores[result.sets[0].name]["scenes"].per_class == pytest.approx(expected)


def test_a_teacher_is_stretched_over_the_mask(teacher):
    network = teacher_network(teacher)
    labels = network.predict(paint([["blue", "green"]], (50, 200)), (30, 70))
    assert labels.shape == (30, 70)
    assert (labels[:, :33] == 3).all()
    assert (labels[:, 37:] == 2).all()


# ---------------------------------------------------------------------------------------------------- what goes wrong


def test_what_cannot_be_compared_is_refused(facades, teacher, student, tmp_path):
    with pytest.raises(UsageError, match="two networks are called 'ade'"):
        compare_stills([facades], [], [teacher, teacher])
    with pytest.raises(UsageError, match="two sets are called"):
        compare_stills([facades, facades], [student])
    with pytest.raises(DataError, match="has 7 classes, not 32"):
        compare_stills([facades], [], [write_teacher(tmp_path / "seven.tflite", classes=7)])
    with pytest.raises(DataError, match="no such file"):
        compare_stills([facades], [], [tmp_path / "none.tflite"])
    mine = write_stills(tmp_path / "mine" / "test", {"zeppelin": 1}, [(paint([["red"]]), paint_mask([[1]]))])
    with pytest.raises(DataError, match=r"mine/test: no built-in label map from label set 'scenes' .*; leave out"):
        compare_stills([mine], [student])


# ------------------------------------------------------------------------------------------------------- as a command


def test_the_command_writes_and_prints(facades, teacher, student, tmp_path):
    line = ("research", "stills", facades, "-m", student, "-t", teacher.parent, "-o", tmp_path / "out" / "stills.json")
    done = call(*line)
    assert done.returncode == 0, done.stderr
    assert "classes of ade31" in done.stdout
    assert "ade, a teacher" in done.stdout
    written = (tmp_path / "out" / "stills.json").read_text()
    result = json.loads(written)
    assert (result["kind"], result["schema"], result["tfcseg"]) == ("stills", 1, version("tfcseg"))
    assert [each["network"]["role"] for each in result["networks"]] == ["teacher", "student"]
    assert result["models"][0]["sha256"] == load_model(student).sha256
    assert str(tmp_path.parent) not in written  # results say nothing of the machine's folders
    assert json.loads(call(*line, "--overwrite", "--json", "-q").stdout) == result
    refused = call(*line)
    assert refused.returncode == 1
    assert "already exists" in refused.error


def test_a_folder_without_teachers_is_told_in_one_line(facades, tmp_path):
    done = call("research", "stills", facades, "-t", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such .tflite file, or none in this folder" in done.error
