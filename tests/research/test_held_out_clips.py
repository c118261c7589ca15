"""Modes on clips that nobody labelled: the teachers' targets, what is measured of a clip, and what is written."""

from __future__ import annotations

import itertools
import json

import cv2
import numpy as np
import pytest

from tests.helpers.command_line import call
from tests.helpers.media import folder_of_images
from tests.helpers.still_fixture import paint
from tests.helpers.tiny_model import moving_images
from tests.helpers.tiny_teacher import write_teacher
from tests.research.test_held_out_stills import write_scenes_model
from tfcseg.errors import DataError, UsageError
from tfcseg.inference.segment import segment
from tfcseg.labels.label_sets import ADE31, NO_CLASS, SCENES
from tfcseg.metrics.scores import VideoConsistency
from tfcseg.model.options import InferenceOptions
from tfcseg.research.clips import clip_name, compare_clips
from tfcseg.research.networks import ClipTargets, Judges
from tfcseg.training.teachers import GRID
from tfcseg.weights.loading import load_model

FRAMES = 12


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teachers") / "ade.tflite")


@pytest.fixture(scope="module")
def things_teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teachers") / "voc.tflite", classes=21)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return write_scenes_model(tmp_path_factory.mktemp("model") / "student.safetensors")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder called images, in one that has the clip's name."""
    folder = tmp_path_factory.mktemp("clips") / "walk" / "images"
    folder.parent.mkdir()
    images = moving_images(FRAMES, (48, 64))
    folder_of_images(folder, images, [f"{index:05d}.png" for index in range(FRAMES)])
    return folder


@pytest.fixture(scope="module")
def result(clip, student, teacher):
    return compare_clips([clip], [student], [teacher])


# ---------------------------------------------------------------------------------------------------- teachers' targets


def test_sure_teachers_give_targets(teacher):
    targets = Judges([teacher]).label([paint([["blue", "green"]])] * 3)
    assert targets.labels == ADE31
    assert targets.grids.shape == (3, GRID, GRID)
    assert (targets.grids[:, 10:-10, 10 : GRID // 2 - 4] == ADE31.index("sky")).all()
    assert (targets.grids[:, 10:-10, GRID // 2 + 4 : -10] == ADE31.index("building")).all()
    assert targets.sure > 0.95


def test_teachers_that_disagree_give_no_target(teacher, tmp_path):
    other = write_teacher(tmp_path / "other.tflite", bias=6000)  # to which all is other
    frames = [paint([["blue"]])] * 2
    assert Judges([teacher]).label(frames).sure == 1.0
    assert Judges([teacher, other]).label(frames).sure == 0.0
    assert Judges([teacher, other, teacher]).label(frames).sure == 1.0  # two against one


def test_with_the_teacher_of_things_targets_are_scenes(teacher, things_teacher):
    """Red is wall to one and an aeroplane to the other, which alone knows these and is sure."""
    judges = Judges([things_teacher, teacher])
    targets = judges.label([paint([["red", "gray"]])] * 2)
    assert targets.labels == SCENES
    assert judges.names == ("voc", "ade")
    assert (targets.grids[:, 10:-10, 10 : GRID // 2 - 4] == SCENES.index("airplane")).all()
    assert (targets.grids[:, 10:-10, GRID // 2 + 4 : -10] == SCENES.index("other")).all()


def test_unsure_positions_are_left_out_of_vc():
    """One half is sky all along, the other never sure: only the sky's stability counts."""
    grids = np.full((12, GRID, GRID), ADE31.index("sky"), np.uint8)
    grids[:, :, GRID // 2 :] = NO_CLASS
    targets = ClipTargets(ADE31, grids)
    assert targets.sure == 0.5
    steady, flickering = np.zeros((20, 40), np.uint8), np.zeros((20, 40), np.uint8)
    flickering[:, 20:] = 7
    flickering[:10, :20] = 5
    found = VideoConsistency((8,))
    for index, target in enumerate(targets.at((20, 40))):
        found.update(target, flickering if index % 2 else steady)
    assert found.result()[8].vc.value == 0.5


def test_targets_need_a_teacher_of_scenes(things_teacher, tmp_path):
    with pytest.raises(UsageError, match="no teacher has the classes of ade31"):
        Judges([things_teacher])
    with pytest.raises(DataError, match="no such file"):
        Judges([tmp_path / "none.tflite"])


# -------------------------------------------------------------------------------------------------- what is measured


def test_numbers_are_those_of_the_labels_that_a_run_gives(result, clip, student, teacher):
    model = load_model(student)
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(clip.iterdir())]
    grids = Judges([teacher]).label(images).grids
    wanted = [cv2.resize(grid, (64, 48), interpolation=cv2.INTER_NEAREST_EXACT) for grid in grids]
    for mode, numbers in result.results[0].clips["walk"].items():
        labels = [frame.labels for frame in segment(images, model, mode=mode)]
        change = np.mean([np.mean(one != other) for one, other in itertools.pairwise(labels)])
        assert numbers["label_change"] == pytest.approx(100 * change)
        same = [
            np.mean(own[target != NO_CLASS] == target[target != NO_CLASS])
            for own, target in zip(labels, wanted, strict=True)
        ]
        assert numbers["agreement"] == pytest.approx(100 * np.mean(same))
        assert numbers["vc8"] == pytest.approx(100 * brute_vc(wanted, labels, 8))
        assert numbers["vc16"] is None  # 12 frames
        assert 0 < numbers["flow_consistency"] <= 100


def brute_vc(targets, labels, n):
    """VC_n over sure positions, window by window, the last one dropped."""
    found = []
    for start in range(len(labels) - n):
        target, own = np.stack(targets[start : start + n]), np.stack(labels[start : start + n])
        is_constant = (target == target[0]).all(axis=0) & (target != NO_CLASS).all(axis=0)
        if is_constant.any():
            found.append((is_constant & (own == own[0]).all(axis=0)).sum() / is_constant.sum())
    return np.mean(found)


def test_a_result_says_what_was_seen(result):
    (facts,) = result.clips
    assert (facts.name, facts.frames, facts.frame_rate, facts.size) == ("walk", FRAMES, 25.0, (48, 64))
    assert 0 < facts.sure <= 100
    scores = result.results[0]
    assert {mode: options.mode for mode, options in scores.options.items()} == {"image": "image", "tfc": "tfc"}
    assert scores.mean == scores.clips["walk"]


AT_SIX = InferenceOptions(keyframe_interval=6)


def test_correlations_are_compared_at_an_interval_of_ones_own(clip, student):
    found = compare_clips([clip], [student], modes=["tfc-paper", "tfc-aligned", "image"], inference=AT_SIX)
    (scores,) = found.results
    used = {mode: (each.mode, each.correlation, each.keyframe_interval) for mode, each in scores.options.items()}
    assert used["tfc-paper"] == ("tfc", "paper", 6)
    assert used["tfc-aligned"] == ("tfc", "aligned", 6)
    assert used["image"][2] == 1
    model = load_model(student)
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(clip.iterdir())]
    for mode, correlation in (("tfc-paper", "paper"), ("tfc-aligned", "aligned")):
        labels = [frame.labels for frame in segment(images, model, correlation=correlation, keyframe_interval=6)]
        change = np.mean([np.mean(one != other) for one, other in itertools.pairwise(labels)])
        assert scores.clips["walk"][mode]["label_change"] == pytest.approx(100 * change)


def test_adaptive_keyframes_are_for_the_modes_that_can_have_them(clip, student):
    adaptive = InferenceOptions(sides="both", keyframes="adaptive")
    found = compare_clips([clip], [student], modes=["image", "tfc"], inference=adaptive, max_frames=6)
    used = {mode: (each.sides, each.keyframes) for mode, each in found.results[0].options.items()}
    assert used == {"image": ("one", "fixed"), "tfc": ("both", "adaptive")}


def test_without_teachers_there_is_no_vc(clip, student):
    found = compare_clips([clip], [student], modes=["image"], max_frames=3)
    assert set(found.results[0].clips["walk"]["image"]) == {"flow_consistency", "label_change"}
    assert found.clips[0].frames == 3
    assert (found.clips[0].sure, found.teachers) == (None, ())


def test_the_beginning_of_a_clip_is_seen(clip, student):
    assert compare_clips([clip], [student], modes=["image"], first_s=0.2).clips[0].frames == 5  # at 25 Hz


def test_clips_are_called_by_their_folder_or_file(tmp_path):
    (tmp_path / "walk" / "images").mkdir(parents=True)
    assert clip_name(tmp_path / "walk" / "images") == clip_name(tmp_path / "walk") == "walk"
    assert clip_name("videos/street.mp4") == "street"


def test_what_cannot_be_compared_is_refused(clip, student):
    for arguments, message in (
        ({"modes": ["tfc", "tfc"]}, "a mode is named twice"),
        ({"modes": ["tfc"], "inference": InferenceOptions(keyframe_interval=0)}, "keyframe interval 0 is not between"),
        ({"modes": ["image"], "inference": InferenceOptions(sides="both")}, "are for mode tfc"),
        ({"sources": [clip, clip]}, "two clips are called 'walk'"),
        ({"models": [student, student]}, "two models are called 'tiny'"),
    ):
        with pytest.raises(UsageError, match=message):
            compare_clips(**{"sources": [clip], "models": [student], **arguments})


# ------------------------------------------------------------------------------------------------------- as a command


def test_the_command_writes_and_prints(clip, student, teacher, tmp_path):
    line = ("research", "clips", clip, "-m", student, "-t", teacher, "-o", tmp_path / "clips.json", "--max-frames", 10)
    done = call(*line)
    assert done.returncode == 0, done.stderr
    assert "tiny, image → tfc" in done.stdout
    assert "mean" in done.stdout
    written = (tmp_path / "clips.json").read_text()
    content = json.loads(written)
    assert (content["kind"], content["teachers"], content["modes"]) == ("clips", ["ade"], ["image", "tfc"])
    assert content["models"][0]["sha256"] == load_model(student).sha256
    assert str(clip.parents[1].parent) not in written
    assert call(*line).returncode == 1
