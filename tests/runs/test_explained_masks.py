"""Masks that explain themselves, and the inputs that are pictures: their files, their names and their rate."""

import csv
import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import typer

from tests.helpers.command_line import call
from tests.helpers.media import LOSSLESS, folder_of_images, numbered_images, write_clip
from tests.helpers.tiny_model import NAMES, tiny_card, write_tiny_model
from tfcseg.cli.options import frame_rate
from tfcseg.media.masks import read_mask
from tfcseg.media.reader import probe, read_frames

QUICK = ("--no-flow-consistency", "--no-html", "--size", "32", "-q")
SHOTS = ["shot 2.png", "shot 10.jpg", "Shot 11.PNG", "ü.bmp"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def shots(tmp_path):
    return folder_of_images(tmp_path / "shots", numbered_images(len(SHOTS)), SHOTS)


def run(*arguments):
    done = call("run", *arguments, *QUICK)
    assert done.returncode == 0, done.stderr
    return done


def rows(out):
    with (out / "frames.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("switches", [(), ("--no-report", "--no-csv", "--no-overlay")])
def test_all_classes_lie_beside_the_masks(shots, weights, tmp_path, switches):
    run(shots, "-o", tmp_path / "out", "-m", weights, *switches)
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert [entry["index"] for entry in classes] == list(range(len(NAMES)))
    assert [entry["name"] for entry in classes] == list(NAMES)
    assert [tuple(entry["colour"]) for entry in classes] == list(tiny_card().labels.palette)
    with PIL.Image.open(tmp_path / "out" / "masks" / "00000000.png") as mask:
        assert mask.getpalette()[: 3 * len(NAMES)] == [part for entry in classes for part in entry["colour"]]
    assert (
        not (tmp_path / "out" / "report.json").exists()
        or "classes.json" in json.loads((tmp_path / "out" / "report.json").read_text())["outputs"].values()
    )


def test_what_has_no_class_is_explained_where_there_is_such_a_thing(shots, weights, tmp_path):
    run(shots, "-o", tmp_path / "out", "-m", weights, "--unsure", "0.5")
    last = json.loads((tmp_path / "out" / "classes.json").read_text())[-1]
    assert last == {"index": 255, "name": "no class", "colour": [0, 0, 0]}
    done = call("run", shots, "-o", tmp_path / "all", "-m", weights, *QUICK[:-1], "--unsure", "1", "--end", "0.04")
    assert "\nclasses           no class 100 %\n" in done.stderr
    run(shots, "-o", tmp_path / "none", "-m", weights, "--no-masks")
    assert not (tmp_path / "none" / "classes.json").exists()


def test_a_list_of_classes_of_others_is_kept(shots, weights, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "classes.json").write_text('{"1": "sky"}')
    for switches in ((), ("--overwrite",)):
        done = call("run", shots, "-o", tmp_path / "out", "-m", weights, *QUICK, *switches)
        assert done.returncode == 1
        assert "classes.json" in done.error
    assert (tmp_path / "out" / "classes.json").read_text() == '{"1": "sky"}'
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_rows_name_the_files_of_frames(shots, weights, tmp_path):
    run(shots, "-o", tmp_path / "out", "-m", weights, "--start", "0.04")
    assert [row["source"] for row in rows(tmp_path / "out")] == SHOTS[1:]
    clip = write_clip(tmp_path / "clip.mp4", 2)
    run(clip, "-o", tmp_path / "video", "-m", weights)
    assert "source" not in rows(tmp_path / "video")[0]


def test_masks_are_called_like_the_files_if_wanted(shots, weights, tmp_path):
    for names in ("number", "source"):
        run(shots, "-o", tmp_path / names, "-m", weights, "--mask-names", names, "--confidence")
    for folder in ("masks", "confidence"):
        named, numbered = tmp_path / "source" / folder, tmp_path / "number" / folder
        assert {path.name for path in named.iterdir()} == {f"{Path(name).stem}.png" for name in SHOTS}
        for index, name in enumerate(SHOTS):
            same = read_mask(named / f"{Path(name).stem}.png") == read_mask(numbered / f"{index:08d}.png")
            assert same.all()
    done = call("run", shots, "-o", tmp_path / "source", "-m", weights, *QUICK)
    assert "more already exist; use" in done.error
    (tmp_path / "source" / "masks" / "mine.png").write_bytes((shots / SHOTS[0]).read_bytes())
    run(shots, "-o", tmp_path / "source", "-m", weights, "--overwrite")
    assert len(list((tmp_path / "source" / "masks").iterdir())) == len(SHOTS) + 1, "and nothing of others is removed"


def test_the_page_finds_masks_by_their_names(shots, weights, tmp_path):
    done = call("run", shots, "-o", tmp_path / "out", "-m", weights, "--mask-names", "source", "--size", "32", "-q")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert '"shot%2010.png"' in page
    assert '"%C3%BC.png"' in page


def test_names_that_cannot_be_are_refused_before_any_work(shots, weights, tmp_path):
    shutil.copy(shots / SHOTS[0], shots / "ü.png")
    done = call("run", shots, "-o", tmp_path / "out", "-m", weights, "--mask-names", "source")
    assert (done.returncode, "ü.bmp, ü.png would get the same mask ü.png" in done.error) == (2, True)
    clip = write_clip(tmp_path / "clip.mp4", 2)
    done = call("run", clip, "-o", tmp_path / "out", "-m", weights, "--mask-names", "source")
    assert (done.returncode, "its frames are not files" in done.error) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("typed", "rate"), [("5", 5), ("12.5", Fraction(25, 2)), ("30000/1001", Fraction(30000, 1001))]
)
def test_folders_of_images_have_the_rate_that_is_given(shots, weights, tmp_path, typed, rate):
    run(shots, "-o", tmp_path / "out", "-m", weights, "--fps", typed)
    assert probe(tmp_path / "out" / "overlay.mp4").frame_rate == rate
    assert len(list(read_frames(tmp_path / "out" / "overlay.mp4"))) == len(SHOTS)
    assert float(rows(tmp_path / "out")[1]["time_s"]) == pytest.approx(float(1 / rate), abs=1e-6)
    done = call("run", shots, "-o", tmp_path / "out", "-m", weights, *QUICK, "--resume")
    assert f"fps was {rate} and is now not given" in done.error


@pytest.mark.parametrize("typed", ["0", "-1", "1/0", "many", "1001", "0.0001", "nan", "1e3", "5/"])
def test_senseless_rates_are_refused(typed):
    with pytest.raises(typer.BadParameter, match="is not a frame rate"):
        frame_rate(typed)


@pytest.mark.parametrize(("name", "video"), [("clip.mkv", LOSSLESS), ("clip.png", ("-f", "apng"))])
def test_videos_keep_their_rate(weights, tmp_path, name, video):
    clip = write_clip(tmp_path / name, 2, video=video)
    done = call("run", clip, "-o", tmp_path / "out", "-m", weights, "--fps", "5")
    assert (done.returncode, "has its own frame rate; --fps is for folders" in done.error) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", SHOTS)
def test_a_picture_is_an_input(shots, weights, tmp_path, name):
    run(shots / name, "-o", tmp_path / "out", "-m", weights, "--mask-names", "source")
    mask = read_mask(tmp_path / "out" / "masks" / f"{Path(name).stem}.png")
    folder = folder_of_images(tmp_path / "alone", [], [])
    shutil.copy(shots / name, folder / name)
    run(folder, "-o", tmp_path / "folder", "-m", weights)
    assert np.array_equal(mask, read_mask(tmp_path / "folder" / "masks" / "00000000.png"))
    assert [row["source"] for row in rows(tmp_path / "out")] == [name]


def test_a_damaged_picture_is_named(shots, weights, tmp_path):
    (shots / SHOTS[0]).write_bytes(b"")
    done = call("run", shots / SHOTS[0], "-o", tmp_path / "out", "-m", weights)
    assert done.returncode == 1
    assert done.error == f"{shots / SHOTS[0]}: the image is empty (0 bytes)"
    assert not (tmp_path / "out").exists()
