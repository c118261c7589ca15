"""The VSPW reader on synthetic folders, with every defect of the public copies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import vspw_fixture as fixture
from tests.helpers.vspw_fixture import FIRST_NUMBER, VOID, make_vspw, mask_path
from tfcseg.errors import DataError
from tfcseg.evaluation.vspw import open_vspw, read_target
from tfcseg.labels.label_sets import VSPW

VIDEO = "0_hills"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_vspw(tmp_path / "VSPW_480p")


def test_reads_names_videos_and_frames(root):
    dataset = open_vspw(root)
    assert dataset.labels.names == VSPW
    assert dataset.videos == ("0_hills", "1_road")
    video = dataset.read_video(VIDEO)
    assert [frame.number for frame in video.frames] == list(range(FIRST_NUMBER, FIRST_NUMBER + 20))
    assert video.frames[4].stem == "00000170"
    assert video.frames[4].image == root / "data/0_hills/origin/00000170.jpg"
    assert video.frames[4].mask == root / "data/0_hills/mask/00000170.png"
    assert sum(video.missing_before) == 0
    assert all(frame.mask for frame in video.frames)


def test_frames_may_have_any_format_that_runs_read(root):
    image = root / "data/0_hills/origin/00000170.jpg"
    image.rename(image.with_suffix(".webp"))
    assert open_vspw(root).read_video(VIDEO).frames[4].image == image.with_suffix(".webp")


def test_raw_masks_become_class_indices(root):
    target, stray = read_target(mask_path(root, VIDEO, FIRST_NUMBER), 124)
    np.testing.assert_array_equal(target, fixture.targets(root, VIDEO)[FIRST_NUMBER])
    assert {VOID, fixture.CAR - 1, fixture.SKY - 1} <= set(np.unique(target).tolist())
    assert stray == {}


def test_every_raw_value_is_a_class_ignored_or_stray(tmp_path):
    import cv2

    path = tmp_path / "all.png"
    cv2.imwrite(str(path), np.arange(256, dtype=np.uint8).reshape(16, 16))
    target, stray = read_target(path, 124)
    assert target.ravel().tolist() == [VOID, *range(124), *[VOID] * 131]
    assert stray == dict.fromkeys(range(125, 255), 1)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("last_newline", [True, False])
def test_lists_of_any_line_end(tmp_path, newline, last_newline):
    root = make_vspw(tmp_path, newline=newline, last_newline=last_newline)
    assert open_vspw(root).videos == ("0_hills", "1_road")


def test_lost_frames_are_gaps(root):
    for number in (170, 175, 176):
        fixture.lose_frame(root, VIDEO, number)
    video = open_vspw(root).read_video(VIDEO)
    gaps = {frame.number: missing for frame, missing in zip(video.frames, video.missing_before, strict=True) if missing}
    assert gaps == {171: 1, 177: 2}
    assert sum(video.missing_before) == 3


def test_gaps_are_seen_at_any_step_of_the_numbers(tmp_path):
    root = make_vspw(tmp_path, step=6)
    fixture.lose_frame(root, VIDEO, FIRST_NUMBER + 6)
    fixture.lose_frame(root, VIDEO, FIRST_NUMBER + 12)
    video = open_vspw(root).read_video(VIDEO)
    assert video.missing_before == (0, 2, *[0] * 16)


def test_a_missing_image_or_mask_is_no_gap_in_the_numbers(root):
    fixture.image_path(root, VIDEO, 170).unlink()
    mask_path(root, VIDEO, 171).unlink()
    video = open_vspw(root).read_video(VIDEO)
    assert sum(video.missing_before) == 0
    assert [frame.number for frame in video.frames if frame.image is None] == [170]
    assert [frame.number for frame in video.frames if frame.mask is None] == [171]


def test_hidden_twins_are_no_frames(root):
    fixture.add_hidden_twins(root, VIDEO)
    assert len(open_vspw(root).read_video(VIDEO).frames) == 20


def test_a_video_may_be_missing_or_without_masks(root):
    fixture.lose_video(root, VIDEO)
    fixture.lose_masks(root, "1_road")
    dataset = open_vspw(root)
    assert dataset.read_video(VIDEO).frames == ()
    assert len(dataset.read_video("1_road").frames) == 18
    assert not any(frame.mask for frame in dataset.read_video("1_road").frames)


def test_palette_masks_keep_their_indices(root):
    path = mask_path(root, VIDEO, FIRST_NUMBER)
    expected, _ = read_target(path, 124)
    fixture.make_palette(path)
    np.testing.assert_array_equal(read_target(path, 124)[0], expected)


def test_value_252_is_ignored_and_counted(root):
    path = mask_path(root, VIDEO, FIRST_NUMBER)
    before, _ = read_target(path, 124)
    fixture.put_value(path, 252)
    target, stray = read_target(path, 124)
    assert stray == {252: 6}
    assert (target[:2, :3] == VOID).all()
    np.testing.assert_array_equal(target[2:], before[2:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (fixture.empty_file, "00000166.png"),
        (fixture.cut_file, "00000166.png"),
        (fixture.make_colour, "00000166.png.*colour"),
        (Path.unlink, "00000166.png.*[Nn]o such file"),
    ],
)
def test_damaged_masks_are_named(root, damage, message):
    path = mask_path(root, VIDEO, FIRST_NUMBER)
    damage(path)
    with pytest.raises(DataError, match=message):
        read_target(path, 124)


def test_frames_without_a_number_are_refused(root):
    mask_path(root, VIDEO, FIRST_NUMBER).rename(root / "data" / VIDEO / "mask" / "first.png")
    with pytest.raises(DataError, match="frame 'first' does not end in a frame number"):
        open_vspw(root).read_video(VIDEO)


def test_two_names_of_one_number_are_refused(root):
    mask_path(root, VIDEO, FIRST_NUMBER).rename(root / "data" / VIDEO / "mask" / "166.png")
    with pytest.raises(DataError, match=r"00000166 and 166 are the same frame number|166 and 00000166"):
        open_vspw(root).read_video(VIDEO)


def test_other_class_lists_are_read(tmp_path):
    root = make_vspw(tmp_path, names=("road", "sky"))
    assert open_vspw(root).labels.names == ("road", "sky")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"others": "0"}', "class ids must be 1, 2, 3"),
        ('{"others": "0", "road": "2"}', "class ids must be 1, 2, 3"),
        ('{"road": "1", "sky": "1"}', "'road' and 'sky' have the same id 1"),
        ('{"road": "1", "road": "2"}', "'road' is given twice"),
        ('{"road": "one"}', "'road' has id 'one'"),
        ('{"road": true}', "'road' has id True"),
        ('["road"]', "a JSON list"),
        ('{"road": ', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_class_lists_that_make_no_sense_are_refused(root, content, message):
    (root / "label_num_dic_final.json").write_text(content)
    with pytest.raises(DataError, match=f"label_num_dic_final.json: .*{message}"):
        open_vspw(root)


def test_more_classes_than_8_bits_hold_are_refused(root):
    ids = {f"class {index}": index for index in range(1, 255)}
    (root / "label_num_dic_final.json").write_text(json.dumps(ids))
    with pytest.raises(DataError, match="up to 253"):
        open_vspw(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("../../etc\n", "'../../etc' is not the name of a folder"),
        ("..\n", "'..' is not the name of a folder"),
        ("\n \n", "lists no videos"),
    ],
)
def test_lists_that_make_no_sense_are_refused(root, content, message):
    (root / "val.txt").write_text(content)
    with pytest.raises(DataError, match=f"val.txt: {message}"):
        open_vspw(root)


def test_what_is_missing_in_the_folder_is_said(root, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_vspw(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no data/ in it"):
        open_vspw(root / "data")
    with pytest.raises(DataError, match=r"no list all.txt for the split; lists there: test, train, val"):
        open_vspw(root, "all")
    (root / "label_num_dic_final.json").unlink()
    with pytest.raises(DataError, match=r"label_num_dic_final.json: no such file"):
        open_vspw(root)


def test_a_real_folder_if_there_is_one():
    folder = os.environ.get("TFCSEG_VSPW")
    if not folder:
        pytest.skip("TFCSEG_VSPW does not name a VSPW folder")
    dataset = open_vspw(folder)
    assert dataset.labels.names == VSPW
    for name in dataset.videos[:3]:
        video = dataset.read_video(name)
        assert video.frames
        masks = [frame.mask for frame in video.frames if frame.mask]
        assert all(set(np.unique(read_target(mask, 124)[0])) <= {*range(124), VOID} for mask in masks[:5])
