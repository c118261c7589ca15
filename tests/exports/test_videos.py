"""Exports as videos and tables: labels.mkv, mattes, areas.csv."""

import csv
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tests.helpers.browser import Browser
from tests.helpers.labelled import (
    LABELS,
    LIGHT,
    PERSON,
    SIZE,
    SKY,
    drawn_images,
    drawn_maps,
    export_to,
    labelled_video,
    only,
)
from tests.helpers.media import run_ffmpeg, write_clip
from tfcseg.errors import DataError, InputError
from tfcseg.exports.export import matte_names
from tfcseg.labels.label_sets import NO_CLASS, LabelSet
from tfcseg.media.masks import read_label_video
from tfcseg.media.reader import probe, read_frames


def decoded(path, kind, *options):
    """(T, H, W[, C]) what ffmpeg reads."""
    channels = {"gray": (), "rgba": (4,)}[kind]
    data = run_ffmpeg(*options, "-i", path, "-f", "rawvideo", "-pix_fmt", kind, "-")
    return np.frombuffer(data, np.uint8).reshape(-1, *SIZE, *channels)


# --- labels.mkv ----------------------------------------------------------------------------------------------------


def test_the_label_video_has_all_labels_for_ffmpeg_and_for_us(tmp_path):
    """Also those of classes that are not chosen, as the masks have."""
    maps = [*drawn_maps(3), np.arange(45 * 71, dtype=np.uint8).reshape(SIZE) % 4]
    video = labelled_video(tmp_path, maps, shown=only(PERSON), pixel_aspect=Fraction(4, 3))
    export_to(tmp_path, video, "video")
    assert np.array_equal(decoded(tmp_path / "labels.mkv", "gray"), maps)
    assert np.array_equal(list(read_label_video(tmp_path / "labels.mkv")), maps)
    info = probe(tmp_path / "labels.mkv")
    assert (info.frame_rate, info.pixel_aspect) == (video.frame_rate, video.pixel_aspect)


def test_the_same_labels_make_the_same_files(tmp_path):
    contents = []
    for _ in range(2):
        exported = export_to(
            tmp_path, labelled_video(tmp_path, drawn_maps(2)), "video", "coco", "cvat", "yolo", "areas"
        )
        contents.append([(tmp_path / name).read_bytes() for name in exported.files.values()])
    assert contents[0] == contents[1]


def test_other_videos_are_no_label_maps(tmp_path):
    write_clip(tmp_path / "colours.mkv", 2)
    (tmp_path / "text.mkv").write_text("no video")
    for name, words in (("colours", "FFV1 of 8-bit gray"), ("text", "cannot be read"), ("none", "No such file")):
        with pytest.raises(DataError, match=words):
            list(read_label_video(tmp_path / f"{name}.mkv"))


# --- mattes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mattes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mattes")
    maps = drawn_maps(3)
    exported = export_to(folder, labelled_video(folder, maps, shown=only(PERSON, LIGHT)), "matte")
    assert exported.files == {
        "matte_traffic_light": "matte_traffic_light.mp4",
        "matte_traffic_light_alpha": "matte_traffic_light.webm",
        "matte_person": "matte_person.mp4",
        "matte_person_alpha": "matte_person.webm",
    }
    return folder, np.array(maps)


@pytest.mark.parametrize(("name", "label"), [("traffic_light", LIGHT), ("person", PERSON)])
def test_mattes_are_white_where_the_class_is(mattes, name, label):
    folder, maps = mattes
    frames = np.array([frame.image[: SIZE[0], : SIZE[1]] for frame in read_frames(folder / f"matte_{name}.mp4")])
    assert frames.shape == (*maps.shape, 3)
    assert np.array_equal(frames[..., 0] > 127, maps == label)
    sure = np.abs(frames[..., 0].astype(int) - 255 * (maps == label)) < 40
    assert sure.mean() > 0.99
    assert probe(folder / f"matte_{name}.mp4").frame_rate == Fraction(30000, 1001)


def test_the_video_with_alpha_has_the_source_where_the_class_is(mattes):
    folder, maps = mattes
    frames = decoded(folder / "matte_person.webm", "rgba", "-c:v", "libvpx-vp9")
    is_person = maps == PERSON
    assert ((frames[..., 3] > 127) == is_person).mean() > 0.995
    source = np.array(drawn_images(3)).astype(int)
    assert np.abs(frames[..., :3] - source)[is_person].mean() < 6


def test_a_browser_shows_what_is_behind_the_video_with_alpha(mattes, tmp_path):
    folder, maps = mattes
    page = tmp_path / "page.html"
    address = (folder / "matte_person.webm").as_uri()
    page.write_text(
        f'<body style="margin:0"><div id="stage" style="background:#f0f;width:71px;height:45px">'
        f'<video src="{address}" muted preload="auto"></video></div></body>'
    )
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page)
        browser.wait(lambda: browser.js("return document.querySelector('video').readyState") >= 2)
        shown = browser.screenshot("#stage").astype(int)
    finally:
        browser.close()
    is_behind = np.abs(shown - [255, 0, 255]).sum(-1) < 90
    assert (is_behind == (maps[0] != PERSON)).mean() > 0.98


def test_names_of_mattes_suit_every_file_system():
    labels = LabelSet("odd", ("a/b", "a b", "../..", "Straße", "x" * 3, "A_B"), ((0, 0, 0),) * 6)
    stems = [matte_names(labels, index)[0] for index in range(6)]
    assert stems == [
        *("matte_a_b_0.mp4", "matte_a_b_1.mp4", "matte_class.mp4", "matte_Straße.mp4", "matte_xxx.mp4"),
        "matte_A_B_5.mp4",
    ]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (drawn_images(2), "ends after 2 frames, there are masks of 3"),
        ([np.zeros((9, 8, 3), np.uint8)] * 3, "frame 0 of the source is 8×9, its mask 71×45"),
    ],
)
def test_another_source_than_that_of_the_masks_leaves_no_mattes(tmp_path, images, words):
    from contextlib import contextmanager

    @contextmanager
    def open_images():
        yield iter(images)

    video = replace(labelled_video(tmp_path, drawn_maps(3), shown=only(PERSON)), open_images=open_images)
    with pytest.raises(InputError, match=words):
        export_to(tmp_path, video, "areas", "matte")
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ""}


# --- areas.csv -----------------------------------------------------------------------------------------------------


def test_areas_are_means_per_second(tmp_path):
    maps = [np.full(SIZE, SKY, np.uint8) for _ in range(5)]
    maps[0][:, :] = PERSON
    maps[2][:9] = PERSON
    maps[4][:] = NO_CLASS
    video = labelled_video(tmp_path, maps, frame_rate=Fraction(2), shown=only(SKY, LIGHT, PERSON))
    export_to(tmp_path, video, "areas")
    with (tmp_path / "areas.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["second", "frames", "sky", "traffic light", "person"],
        ["0", "2", "0.500000", "0.000000", "0.500000"],
        ["1", "2", "0.900000", "0.000000", "0.100000"],
        ["2", "1", "0.000000", "0.000000", "0.000000"],
    ]


def test_seconds_without_a_frame_have_no_row(tmp_path):
    export_to(tmp_path, labelled_video(tmp_path, drawn_maps(2), frame_rate=Fraction(1, 3)), "areas")
    rows = (tmp_path / "areas.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["0", "3"]
    assert len(rows[0].split(",")) == 2 + len(LABELS)
