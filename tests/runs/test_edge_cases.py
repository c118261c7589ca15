"""Media, disks and accidents that break video tools, through the whole command; and that no case is left untested."""

import ast
import csv
import functools
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest

from tests.helpers.command_line import call
from tests.helpers.edge_cases import EDGE_CASES
from tests.helpers.media import (
    LOSSLESS,
    children,
    cut_off,
    folder_of_images,
    numbered_image,
    numbered_images,
    read_number,
    run_ffmpeg,
    write_clip,
    write_uneven,
    write_video,
)
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.media.masks import read_mask
from tfcseg.media.reader import probe, read_frames

TESTS = Path(__file__).parents[1]
BEEP = "sine=frequency=440:d=4,volume='if(lt(t,2),0,1)':eval=frame"  # silent until 2 s
RESULTS = {"classes.json", "frames.csv", "masks", "overlay.mp4", "report.json"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def run(weights, tmp_path):
    """Call ``tfcseg run SOURCE`` with results in ``out``; pixels are left as they are, so that frames can be told."""

    def run(source, *options, out=tmp_path / "out"):
        return call(
            "run",
            source,
            "-o",
            out,
            "-m",
            weights,
            "--no-flow-consistency",
            "-q",
            "--no-legend",
            "--alpha",
            0,
            *options,
        )

    return run


def report_of(out):
    return json.loads((out / "report.json").read_text())


def rows_of(out):
    with (out / "frames.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers_of(video):
    return [read_number(frame.image) for frame in read_frames(video)]


def warned(done, out):
    """Warnings on stderr; they are those of the report, and each comes once."""
    lines = [line.removeprefix("warning: ") for line in done.stderr.splitlines()]
    assert lines == report_of(out)["warnings"]
    assert len(set(lines)) == len(lines)
    return lines


@functools.cache
def defined_tests(file):
    """Names of the test functions of a file."""
    tree = ast.parse(next(TESTS.rglob(file)).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_case_has_tests_and_they_exist():
    assert [case.row for case in EDGE_CASES] == list(range(1, len(EDGE_CASES) + 1))
    assert len(EDGE_CASES) >= 32
    for case in EDGE_CASES:
        assert case.what
        assert case.tests
        for test in case.tests:
            file, _, name = test.partition("::")
            assert name in defined_tests(file), f"row {case.row}: there is no {test}"
    named = Counter(test for case in EDGE_CASES for test in set(case.tests))
    here = {f"{Path(__file__).name}::{name}" for name in defined_tests(Path(__file__).name)}
    assert here - named.keys() == {f"{Path(__file__).name}::test_every_case_has_tests_and_they_exist"}


def test_uneven_times_keep_duration_sound_and_times(run, tmp_path):
    kept = [*range(30), *range(30, 120, 3)]
    picture = write_uneven(tmp_path / "picture.mp4", kept)
    source = tmp_path / "phone.mp4"
    run_ffmpeg("-i", picture, "-f", "lavfi", "-i", BEEP, "-c:v", "copy", "-c:a", "aac", source)
    done = run(source)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    (warning,) = warned(done, out)
    assert warning.startswith("the video has a variable frame rate: decoded at a constant 30")
    report, rows, overlay = report_of(out), rows_of(out), probe(out / "overlay.mp4")
    numbers, rate = numbers_of(out / "overlay.mp4"), 30
    assert report["input"]["frames_repeated"] == sum(row["is_held"] == "1" for row in rows) == 118 - len(kept)
    assert set(numbers) == set(kept)
    assert overlay.frame_rate == rate == report["input"]["frame_rate"]
    assert len(rows) == len(numbers) == report["input"]["frames_decoded"]
    for row, number in zip(rows, numbers, strict=True):  # what is seen at a time is what was filmed then
        assert float(row["time_s"]) == pytest.approx(number / 30, abs=2.1 / rate)  # a frame is held for three
    assert overlay.duration_s == pytest.approx(len(numbers) / rate, rel=0.02)
    assert first_sound_s(out / "overlay.mp4") == pytest.approx(2.0, abs=0.05)


def test_the_player_sees_the_shape_and_hears_the_track_that_the_source_has(run, tmp_path):
    source = tmp_path / "dvd.mkv"
    picture = write_clip(tmp_path / "picture.mkv", 6, filters="setsar=64/45")
    tracks = (
        "-f",
        "lavfi",
        "-i",
        "sine=d=0.2",
        "-f",
        "lavfi",
        "-i",
        "sine=d=0.2",
        "-map",
        "0",
        "-map",
        "1",
        "-map",
        "2",
    )
    codecs = ("-c:v", "copy", "-c:a:0", "flac", "-c:a:1", "aac", "-disposition:a:0", "0", "-disposition:a:1", "default")
    run_ffmpeg("-i", picture, *tracks, *codecs, source)
    assert run(source).returncode == 0
    overlay = probe(tmp_path / "out" / "overlay.mp4")
    assert (overlay.pixel_aspect, overlay.audio) == (Fraction(64, 45), "aac")
    assert report_of(tmp_path / "out")["input"]["pixel_aspect"] == pytest.approx(64 / 45)


def test_sound_that_came_through_a_pipe_is_missed(weights, tmp_path):
    source = write_clip(tmp_path / "clip.mkv", 6, audio=("sine=d=0.24", ("-c:a", "aac")))
    done = subprocess.run(
        [sys.executable, "-m", "tfcseg", "run", "-", "-o", tmp_path / "out", "-m", weights, "-q"],
        input=source.read_bytes(),
        capture_output=True,
        check=True,
    )
    dropped = "audio dropped: a stream can be read only once; save it to a file to keep its sound"
    assert done.stderr.decode() == f"warning: {dropped}\n"
    assert report_of(tmp_path / "out")["warnings"] == [dropped]


def first_sound_s(path):
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[0]):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()).max(axis=0) > 0.05)
            if loud.size:
                return float(frame.pts * frame.time_base) + int(loud[0]) / frame.sample_rate
    raise AssertionError(f"{path} is silent")


def test_odd_sizes_keep_masks_and_metrics_exact(run, tmp_path):
    source = write_video(tmp_path / "odd.mkv", numbered_images(4, (45, 71)), video=LOSSLESS)
    assert run(source).returncode == 0
    out = tmp_path / "out"
    assert (report_of(out)["input"]["height"], report_of(out)["input"]["width"]) == (45, 71)
    assert {read_mask(path).shape for path in (out / "masks").iterdir()} == {(45, 71)}
    assert (probe(out / "overlay.mp4").height, probe(out / "overlay.mp4").width) == (46, 72)
    assert numbers_of(out / "overlay.mp4") == [0, 1, 2, 3]


def test_no_frame_decoded_leaves_nothing(run, tmp_path):
    data = write_clip(tmp_path / "clip.mp4", extra=("-movflags", "+faststart")).read_bytes()
    media = data.index(b"mdat") + 4
    source = tmp_path / "zeros.mp4"
    source.write_bytes(data[:media] + bytes(len(data) - media))
    before, done = children(), run(source)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.error.startswith(f"{source}: no frame could be decoded")
    assert not (tmp_path / "out").exists()
    assert children() == before


def test_a_cut_off_file_is_segmented_as_far_as_it_goes(run, tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", 100, extra=("-movflags", "+faststart", "-g", "10"))
    done = run(cut_off(tmp_path / "cut.mp4", whole, share=0.6))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    count = report_of(out)["input"]["frames_decoded"]
    assert 30 < count < 90
    assert any(
        line.startswith(f"decoded {count} of about 100 frames: the file is cut off") for line in warned(done, out)
    )
    assert len(numbers_of(out / "overlay.mp4")) == len(list((out / "masks").iterdir())) == len(rows_of(out)) == count


def test_a_wrong_frame_count_changes_nothing(run, tmp_path):
    source = write_clip(tmp_path / "clip.avi", 20)
    data = bytearray(source.read_bytes())
    for tag, offset in ((b"avih", 24), (b"strh", 40)):
        at = data.index(tag) + offset
        data[at : at + 4] = (5).to_bytes(4, "little")
    source.write_bytes(data)
    done = run(source)
    assert (done.returncode, warned(done, tmp_path / "out")) == (0, [])
    told = report_of(tmp_path / "out")["input"]
    assert (told["frames_declared"], told["frames_decoded"]) == (5, 20)
    assert numbers_of(tmp_path / "out" / "overlay.mp4") == list(range(20))


@pytest.mark.parametrize("kind", ["picture", "sound"])
def test_what_holds_no_moving_pictures_is_named(run, tmp_path, kind):
    source = tmp_path / "input.mp4"
    if kind == "picture":
        folder_of_images(tmp_path, [numbered_image(1)], ["a.png"])
        (tmp_path / "a.png").rename(source)
    else:
        run_ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", "-c:a", "aac", source)
    done = run(source)
    assert done.returncode == 1
    assert done.error.startswith(f"{source}: ")
    assert {"picture": "it is a picture (png)", "sound": "found audio (aac)"}[kind] in done.error
    assert not (tmp_path / "out").exists()


def test_covers_and_data_streams_are_left_alone(run, tmp_path):
    clip, cover = write_clip(tmp_path / "clip.mp4", 6), tmp_path / "cover.png"
    run_ffmpeg("-f", "lavfi", "-i", "color=blue:s=32x32", "-frames:v", "1", cover)
    source = tmp_path / "many.mov"
    streams = ("-map", "0", "-map", "1", "-c", "copy", "-c:v:0", "png", "-disposition:v:0", "attached_pic")
    run_ffmpeg("-i", cover, "-i", clip, "-timecode", "00:00:00:00", *streams, source)
    done = run(source)
    assert (done.returncode, warned(done, tmp_path / "out")) == (0, [])
    assert numbers_of(tmp_path / "out" / "overlay.mp4") == list(range(6))


@pytest.mark.parametrize(
    ("codec", "filters", "warning"),
    [
        (
            ("-c:v", "ffv1"),
            "format=gbrap,colorchannelmixer=aa=0.9",
            "the video has an alpha channel: it was composited on black",
        ),
        (("-c:v", "ffv1"), "format=yuv420p10le,setparams=color_trc=smpte2084", "the video is HDR (PQ): "),
        (("-c:v", "libx264", "-flags", "+ildct+ilme"), "format=yuv420p,interlace", "the video is interlaced: "),
    ],
    ids=["alpha", "HDR", "interlaced"],
)
def test_what_was_lost_of_the_pictures_is_said_once(run, tmp_path, codec, filters, warning):
    done = run(write_video(tmp_path / "a.mkv", numbered_images(8), video=codec, filters=filters))
    assert done.returncode == 0, done.stderr
    assert [line.startswith(warning) for line in warned(done, tmp_path / "out")] == [True]


@pytest.mark.parametrize(
    ("name", "codec", "status"),
    [
        ("copied.mkv", ("-c:a", "aac"), "aac (copied)"),
        ("coded.mkv", ("-c:a", "pcm_s16le"), "pcm_s16le (aac)"),
        ("odd.mkv", ("-c:a", "libvorbis"), "vorbis (aac)"),
    ],
)
def test_what_became_of_the_sound_is_told(run, tmp_path, name, codec, status):
    source = write_clip(tmp_path / name, 6, audio=("sine=d=0.24", codec))
    assert run(source).returncode == 0
    assert report_of(tmp_path / "out")["input"]["audio"] == status
    assert probe(tmp_path / "out" / "overlay.mp4").audio == "aac"


def test_sound_that_cannot_be_read_costs_nothing_but_itself(run, tmp_path):
    source = write_clip(tmp_path / "clip.mkv", 6, audio=("sine=d=0.24", ("-c:a", "pcm_s16le")))
    source.write_bytes(source.read_bytes().replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"))
    done = run(source)
    assert done.returncode == 0, done.stderr
    assert "dropped" in report_of(tmp_path / "out")["input"]["audio"]
    assert any("sound" in line or "audio" in line for line in warned(done, tmp_path / "out"))
    assert probe(tmp_path / "out" / "overlay.mp4").audio is None
    assert numbers_of(tmp_path / "out" / "overlay.mp4") == list(range(6))


@pytest.mark.parametrize("size", [(16, 16), (2, 2), (1, 1), (16, 900)])
def test_tiny_and_narrow_frames(run, tmp_path, size):
    source = write_video(tmp_path / "tiny.mkv", numbered_images(5, size), video=LOSSLESS)
    done = run(source)
    assert done.returncode == 0, done.stderr
    assert {read_mask(path).shape for path in (tmp_path / "out" / "masks").iterdir()} == {size}
    assert len(list(read_frames(tmp_path / "out" / "overlay.mp4"))) == 5


# Row 13: nothing more can be written.


@contextmanager
def small_disk(folder, kib):
    """Folder on a disk of its own of ``kib`` KiB; skips where we may not mount one."""
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder)
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(("umount", "-l", folder), check=True)


@contextmanager
def small_files(folder, kib):
    """Folder in which no file can become larger than ``kib`` KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, limits[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def noise(count, size=(240, 320)):
    images = np.random.default_rng(0).integers(0, 256, (8, *size, 3), np.uint8)
    return [images[number % 8] for number in range(count)]


def complete_masks(out):
    """Number of masks; each can be read."""
    return sum(read_mask(path).size > 0 for path in out.glob("masks/*.png"))


@pytest.mark.parametrize(("space", "words"), [(small_disk, "No space left on device"), (small_files, "File too large")])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(run, tmp_path, space, words):
    source = write_video(tmp_path / "noise.mkv", noise(60), video=("-c:v", "libx264", "-preset", "ultrafast"))
    before = children()
    with space(tmp_path / "disk", 600) as disk:
        out = disk / "out"
        done = run(source, "--no-masks", out=out)
        assert done.returncode == 1
        assert f"{out}/" in done.error  # the video, or what is kept to go on
        assert words in done.error
        assert not (out / "overlay.mp4").exists()
        assert not (out / "report.json").exists()
    assert children() == before


def test_a_disk_full_of_masks_is_told(run, tmp_path):
    source = write_video(tmp_path / "noise.mkv", noise(60, (120, 160)), video=LOSSLESS)
    with small_disk(tmp_path / "disk", 80) as disk:
        done = run(source, "--no-overlay", out=disk / "out")
        assert done.returncode == 1
        assert "No space left on device" in done.error
        assert str(disk / "out") in done.error
        assert not (disk / "out" / "report.json").exists()
        assert 0 < complete_masks(disk / "out") < 60


def test_a_read_only_folder_is_refused_before_any_work(run, tmp_path, monkeypatch):
    monkeypatch.setattr("tfcseg.weights.loading.load_model", None)
    source, folder = write_clip(tmp_path / "clip.mp4", 3), tmp_path / "folder"
    with read_only(folder):
        for out in (folder, folder / "new"):
            done = run(source, out=out)
            assert done.returncode == 1
            assert f"cannot write to folder '{out}'" in done.error
            assert done.error.endswith("choose another one")
        assert list(folder.iterdir()) == []


@contextmanager
def read_only(folder):
    """Folder that nobody can write to: a read-only disk for root, plain permissions for others."""
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    if subprocess.run(
        ("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder), capture_output=True, check=False
    ).returncode:
        pytest.skip("root may write anywhere, and nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(("umount", "-l", folder), check=True)


def test_an_encoder_that_is_killed_is_told(run, tmp_path):
    source = write_clip(tmp_path / "long.mp4", 120, size=(240, 320))
    before, out = children(), tmp_path / "out"
    stopped = threading.Event()

    def kill_encoder():
        while not stopped.wait(0.01):
            for process in children() - before:
                command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                if b"libx264" in command and len(list(out.glob("masks/*.png"))) > 3:
                    os.kill(process, signal.SIGKILL)
                    return

    killer = threading.Thread(target=kill_encoder)
    killer.start()
    try:
        done = run(source)
    finally:
        stopped.set()
        killer.join()
    assert done.returncode == 1
    assert str(out / "overlay.mp4") in done.error
    assert "killed by SIGKILL" in done.error
    assert not (out / "overlay.mp4").exists()
    assert not (out / "report.json").exists()
    assert complete_masks(out) > 0
    assert children() == before


# Rows 17 to 25.


@pytest.mark.parametrize("name", ["-dash.mp4", "two words.mp4", "日本 ü.mp4", "a'b\"c$(d)`e`.mp4", f"{'x' * 240}.mp4"])
def test_names_of_any_kind(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "plain.mp4", 3, audio=("sine=d=0.12", ("-c:a", "aac"))).rename(name)
    folder = tmp_path / name.removesuffix(".mp4")
    done = run(f"./{name}" if name.startswith("-") else name, out=folder)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} >= RESULTS
    assert probe(folder / "overlay.mp4").audio == "aac"


def test_a_folder_of_all_kinds_of_files(run, tmp_path):
    names = ["f1.png", "f2.jpg", "f10.png", "f9.png"]
    folder = folder_of_images(tmp_path / "frames", [numbered_image(n) for n in (1, 2, 10, 9)], names)
    folder_of_images(folder, [numbered_image(11, (96, 128))], ["f11.png"])
    (folder / "f3.png").write_bytes((folder / "f1.png").read_bytes()[:100])
    (folder / "notes.txt").write_text("no image")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert numbers_of(out / "overlay.mp4") == [1, 2, 2, 9, 10, 11]
    assert [row["is_held"] for row in rows_of(out)] == ["0", "0", "1", "0", "0", "0"]
    skipped, held, fitted = warned(done, out)
    assert skipped == "skipped 1 entry of the folder: not images"
    assert held == "1 image could not be read and show the one before: f3.png: the image is cut off"
    assert fitted == "1 image of another size fitted to 64x48: f11.png (128x96)"


class RunsWhenOpened:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_pickle_as_model_does_not_run(run, tmp_path):
    trace, model = tmp_path / "it-ran", tmp_path / "model.safetensors"
    model.write_bytes(pickle.dumps(RunsWhenOpened(trace)))
    done = run(write_clip(tmp_path / "clip.mp4", 2), "--model", model)
    assert done.returncode == 1
    assert "which is not opened" in done.error
    assert not trace.exists()
    assert not (tmp_path / "out").exists()


class Tags(HTMLParser):
    """Elements and attributes of a page, as a browser would find them."""

    def __init__(self, page):
        super().__init__()
        self.names, self.attributes, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>.mp4", "a</script><script>alert(1)<!--.mp4", "\"' onload='alert(1)\u202e.mp4"]
)
def test_names_that_are_markup_stay_names(run, tmp_path, name):
    plain, source = write_clip(tmp_path / "plain.mp4", 3), tmp_path / name
    source.parent.mkdir(exist_ok=True)
    shutil.copy(plain, source)
    pages = []
    for video, out in ((plain, tmp_path / "plain"), (source, tmp_path / f"of {source.stem}")):
        assert run(video, out=out).returncode == 0
        assert report_of(out)["input"]["path"] == str(video)
        pages.append(Tags((out / "report.html").read_text()))
    expected, found = pages
    assert found.names == expected.names
    assert {key for key, _ in found.attributes} == {key for key, _ in expected.attributes}
    links = [value for key, value in found.attributes if key in ("src", "href", "poster", "data", "action")]
    assert [link for link in links if re.match(r"\w+:|/", link) and not link.startswith("data:image/")] == []


def test_a_table_of_failures_comes_last(weights, tmp_path):
    good = [write_clip(tmp_path / f"{name}.mp4", 3) for name in ("first", "last")]
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.write_bytes(b"")
    text.write_text("notes")
    done = call(
        "run", good[0], empty, text, good[1], "-o", tmp_path / "out", "-m", weights, "--no-flow-consistency", "-q"
    )
    assert done.returncode == 1
    *errors, table = done.stderr.partition("2 of 4 inputs failed")
    assert [line.startswith("error: ") for line in errors[0].splitlines()] == [True, True]
    words = "".join(table.split())  # long names are folded
    for name, reason in (("empty.mp4", "not a video: it is empty (0 bytes)"), ("text.mp4", "not a video: it is text")):
        assert name in words
        assert reason.replace(" ", "") in words
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["first_tfcseg", "last_tfcseg"]
    for folder in (tmp_path / "out").iterdir():
        assert {path.name for path in folder.iterdir()} >= RESULTS
