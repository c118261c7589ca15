"""``tfcseg run`` as a user calls it: real files, what is on disk afterwards, and processes where they matter."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import pytest

import tfcseg
from tests.helpers.command_line import call, interruptible
from tests.helpers.media import LOSSLESS, folder_of_images, numbered_images, run_ffmpeg, write_clip, write_video
from tests.helpers.tiny_model import NAMES, moving_images, write_tiny_model
from tfcseg.cli.run import _listener
from tfcseg.media.masks import read_mask
from tfcseg.media.reader import probe, read_frames
from tfcseg.report.schema import OptionFacts
from tfcseg.runs.options import RunOptions
from tfcseg.weights import loading

FRAMES = 10
REPORT_KEYS = {
    "": {
        "schema",
        "tfcseg",
        "input",
        "model",
        "options",
        "speed",
        "stability",
        "confidence",
        "classes",
        "outputs",
        "warnings",
        "steady",
        "run",
    },
    "input": {
        *("path", "frames_decoded", "frames_declared", "frames_repeated", "frames_dropped"),
        *("width", "height", "frame_rate"),
        *("duration_s", "pixel_aspect", "rotation", "audio", "start_s", "end_s"),
    },
    "model": {
        *("name", "backbone", "sha256", "classes", "parameters"),
        *("trained_on", "licence", "description"),
    },
    "options": {field.name for field in fields(OptionFacts)},
    "speed": {"wall_s", "fps", "model_fps", "keyframe_ms", "non_keyframe_ms", "resumes"},
    "stability": {
        "label_change",
        "flow_consistency",
        "optical_flow",
        "similarity",
        "updated_fraction",
        "keyframes",
        "pulse",
        "cuts",
    },
    "confidence": {"mean", "unsure", "unsure_below", "temperature", "calibration_error"},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Moving blobs at an odd width and height, with sound."""
    path = tmp_path_factory.mktemp("media") / "street.mp4"
    images = moving_images(FRAMES, (45, 71))
    sound = ("sine=frequency=440:duration=0.4", ("-c:a", "aac"))
    return write_video(path, [np.pad(i, ((0, 1), (0, 1), (0, 0)), "edge") for i in images], audio=sound)


def start(*arguments, **options):
    """Run the command in a process of its own, which spends seconds on importing torch."""
    command = [sys.executable, "-m", "tfcseg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def one_line(done):
    """The only line on stderr."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_writes_everything_that_was_promised(clip, weights, tmp_path):
    done = start("run", clip, "-o", tmp_path / "out", "-m", weights, "--json")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    wanted = {"classes.json", "frames.csv", "masks", "overlay.mp4", "report.html", "report.json"}
    assert {path.name for path in out.iterdir()} == wanted
    source, overlay = probe(clip), probe(out / "overlay.mp4")
    assert (overlay.width, overlay.height, overlay.frame_rate) == (source.width, source.height, source.frame_rate)
    assert overlay.audio == "aac"
    assert len(list(read_frames(out / "overlay.mp4"))) == FRAMES
    masks = [read_mask(out / "masks" / f"{n:08d}.png") for n in range(FRAMES)]
    assert {mask.shape for mask in masks} == {(source.height, source.width)}
    assert len(list((out / "masks").iterdir())) == FRAMES
    report = json.loads((out / "report.json").read_text())
    assert json.loads(done.stdout) == report
    assert set(report) == REPORT_KEYS[""]
    for part in ("input", "model", "options", "speed", "stability", "confidence"):
        assert set(report[part]) == REPORT_KEYS[part]
    assert report["input"]["frames_decoded"] == FRAMES
    assert report["stability"]["keyframes"] == 3
    shares = {entry["name"]: entry["share"] for entry in report["classes"]}
    assert set(shares) <= set(NAMES)
    for name, share in shares.items():
        assert share == pytest.approx(np.mean([mask == NAMES.index(name) for mask in masks]), abs=1e-5)


def test_frames_csv_says_what_the_masks_say(clip, weights, tmp_path):
    assert call("run", clip, "-o", tmp_path, "-m", weights, "--overwrite").returncode == 0
    with (tmp_path / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = "frame,time_s,is_keyframe,similarity,updated_fraction,label_change,flow_consistency,model_ms,is_held"
    assert ",".join(rows[0]) == f"{columns},confidence,unsure"
    assert [row["is_keyframe"] for row in rows] == ["1", "0", "0", "0"] * 2 + ["1", "0"]
    masks = [read_mask(tmp_path / "masks" / f"{n:08d}.png") for n in range(FRAMES)]
    for n, row in enumerate(rows):
        assert int(row["frame"]) == n
        assert float(row["time_s"]) == pytest.approx(n / 25, abs=1e-4)
        if n:
            assert float(row["label_change"]) == pytest.approx(np.mean(masks[n] != masks[n - 1]), abs=1e-5)


def test_several_threads_write_the_same(clip, weights, tmp_path, torch_threads):
    """Intervals are then computed at the same time; rounding may differ, order and content do not."""
    for threads in (1, 3):
        torch_threads(threads)
        options = ("--sides", "past", "--no-overlay", "--no-report", "-m", weights)
        assert call("run", clip, "-o", tmp_path / str(threads), *options).returncode == 0
    alone, together = (
        [read_mask(tmp_path / threads / "masks" / f"{n:08d}.png") for n in range(FRAMES)] for threads in "13"
    )
    assert len(list((tmp_path / "3" / "masks").iterdir())) == FRAMES
    for one, other in zip(alone, together, strict=True):
        assert np.mean(one == other) > 0.999
    assert any((one != alone[0]).any() for one in alone)


def test_the_library_gives_the_labels_that_the_command_writes(clip, weights, tmp_path):
    report = tfcseg.run(
        clip, tmp_path / "out", weights, results=tfcseg.ResultOptions(overlay=False, flow_consistency=False)
    )
    assert report.outputs["masks"] == "masks"
    assert not (tmp_path / "out" / "overlay.mp4").exists()
    model = tfcseg.load_model(weights)
    for frame in tfcseg.segment(tfcseg.read_frames(clip), model):
        mask = read_mask(tmp_path / "out" / "masks" / f"{frame.index:08d}.png")
        assert np.array_equal(mask, frame.labels)


@pytest.mark.parametrize(
    ("switch", "missing"),
    [
        ("--no-overlay", "overlay.mp4"),
        ("--no-masks", "masks"),
        ("--no-csv", "frames.csv"),
        ("--no-report", "report.json"),
        ("--no-html", "report.html"),
    ],
)
def test_each_output_can_be_switched_off(clip, weights, tmp_path, switch, missing):
    done = call("run", clip, "-o", tmp_path / "out", "-m", weights, "--end", "0.1", "--no-flow-consistency", switch)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    gone = {missing, "report.html"} if missing == "report.json" else {missing}
    gone |= {"classes.json"} if missing == "masks" else set()
    assert names == {"classes.json", "overlay.mp4", "masks", "frames.csv", "report.json", "report.html"} - gone


def test_side_by_side_shows_both(clip, weights, tmp_path):
    done = call("run", clip, "-o", tmp_path / "out", "-m", weights, "--side-by-side", "--no-overlay", "--end", "0.2")
    assert done.returncode == 0, done.stderr
    pair, source = probe(tmp_path / "out" / "side_by_side.mp4"), probe(clip)
    assert pair.width >= 2 * source.width


def test_interval_one_is_the_image_network(clip, weights, tmp_path):
    for name, options in {"one": ("--keyframe-interval", 1), "image": ("--mode", "image")}.items():
        assert call("run", clip, "-o", tmp_path / name, "-m", weights, "--no-overlay", *options).returncode == 0
    for n in range(FRAMES):
        one, image = (tmp_path / name / "masks" / f"{n:08d}.png" for name in ("one", "image"))
        assert one.read_bytes() == image.read_bytes()


def test_hidden_classes_stay_as_filmed(weights, tmp_path):
    still = [moving_images(1, (48, 64))[0]] * 2
    source = write_video(tmp_path / "still.mkv", still, video=LOSSLESS)
    common = ("-m", weights, "--no-legend", "--no-flow-consistency")
    assert call("run", source, "-o", tmp_path / "all", *common).returncode == 0
    mask = read_mask(tmp_path / "all" / "masks" / "00000000.png")
    present = NAMES[int(np.bincount(mask.ravel()).argmax())]
    assert call("run", source, "-o", tmp_path / "one", *common, "--classes", present).returncode == 0
    first = {name: next(read_frames(tmp_path / name / "overlay.mp4")).image.astype(int) for name in ("all", "one")}
    filmed = still[0].astype(int)
    inside = mask == NAMES.index(present)
    tint = {name: np.abs(image - filmed).mean(axis=2) for name, image in first.items()}
    assert tint["one"][inside].mean() > 15
    assert tint["one"][~inside].mean() < 0.5 * tint["all"][~inside].mean()


def test_existing_results_are_refused_before_the_model_loads(clip, weights, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text('{"tfcseg": "0.1.0"}')
    with monkeypatch.context() as patched:
        patched.setattr(loading, "load_model", None)
        done = call("run", clip, "-o", out, "-m", weights)
    assert done.returncode == 1
    assert f"{str(out / 'report.json')!r} already exists" in one_line(done)
    assert "--overwrite" in one_line(done)
    assert call("run", clip, "-o", out, "-m", weights, "--overwrite").returncode == 0
    assert json.loads((out / "report.json").read_text())["schema"] == 1


@pytest.mark.parametrize(
    "mistake",
    [
        *(("--alpha", 7), ("--classes", "persn"), ("-m", "tfc-none"), ("--half-size-share", 2)),
        *(("--start", 1000), ("--correlation", "align")),
    ],
    ids=lambda mistake: mistake[0],
)
def test_a_mistake_does_not_cost_the_results_that_were_to_be_replaced(clip, weights, tmp_path, mistake):
    out = tmp_path / "out"
    assert call("run", clip, "-o", out, "-m", weights, "--end", 0.2).returncode == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    done = call("run", clip, "-o", out, "-m", weights, *mistake, "--overwrite")
    assert done.returncode in {1, 2}
    one_line(done)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_missing_input_does_not_cost_them_either(clip, weights, tmp_path):
    out = tmp_path / "out"
    assert call("run", clip, "-o", out, "-m", weights, "--end", 0.2).returncode == 0
    assert call("run", tmp_path / "none.mp4", "-o", out, "-m", weights, "--overwrite").returncode != 0
    assert (out / "report.json").is_file()
    assert (out / "overlay.mp4").is_file()


def test_output_that_is_the_input_is_refused_even_with_overwrite(clip, weights, tmp_path):
    source = tmp_path / "overlay.mp4"
    source.write_bytes(clip.read_bytes())
    done = call("run", source, "-o", tmp_path, "-m", weights, "--overwrite")
    assert done.returncode == 2
    assert "overlay.mp4" in one_line(done)
    assert source.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ("--mode", "magic"),
        ("--keyframe-interval", "0"),
        ("--threshold", "1.5"),
        ("--size", "7"),
        ("--alpha", "2"),
        ("--classes", "sky,persn"),
        ("--device", "tpu"),
        ("--precision", "fp8"),
        ("--correlation", "psychic"),
        ("--half-size-share", "2"),
        ("--start", "3", "--end", "2"),
        ("--no-overlay", "--no-masks", "--no-csv", "--no-report"),
        ("--no-such-option",),
    ],
)
def test_senseless_options_are_usage_errors_and_leave_nothing(clip, weights, tmp_path, options):
    done = call("run", clip, "-o", tmp_path / "out", "-m", weights, *options)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_that_only_prints_leaves_nothing(clip, weights, tmp_path):
    switches = ("--no-overlay", "--no-masks", "--no-csv", "--no-report", "--json")
    done = call("run", clip, "-o", tmp_path / "out", "-m", weights, *switches)
    assert json.loads(done.stdout)["outputs"] == {}
    assert "written" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--classes", "persn"), "no class 'persn'"),
        (("--palette", "none.json"), "none.json: no such file"),
        (("--sides", "both", "--latency", "low"), "both sides need the next keyframe"),
        (("-m", "none"), "no model or weights file 'none'"),
    ],
)
def test_wrong_values_are_told_before_results_that_are_there(clip, weights, tmp_path, options, said):
    (tmp_path / "report.json").write_text('{"tfcseg": "0.1.0"}')
    assert said in call("run", clip, "-o", tmp_path, "-m", weights, *options).error


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "no_moov"])
def test_what_is_no_video_gets_one_line_and_leaves_nothing(clip, weights, tmp_path, kind):
    source = tmp_path / "input.mp4"
    content = {"text": b"hello", "empty": b"", "no_moov": clip.read_bytes()[:400]}
    if kind in content:
        source.write_bytes(content[kind])
    done = call("run", source, "-o", tmp_path / "out", "-m", weights)
    assert done.returncode == 1
    assert "input.mp4" in one_line(done)
    assert not (tmp_path / "out").exists()


def test_one_bad_input_of_many(clip, weights, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("not a video")
    done = call("run", bad, clip, "-o", tmp_path / "out", "-m", weights, "--no-overlay", "--json")
    assert done.returncode == 1
    assert "1 of 2 inputs failed" in done.stderr
    assert len(json.loads(done.stdout)) == 1
    assert (tmp_path / "out" / "street_tfcseg" / "report.json").exists()
    assert not (tmp_path / "out" / "bad_tfcseg").exists()


def test_stdin(weights, tmp_path):
    clip = write_clip(tmp_path / "stream.mkv", FRAMES)
    with clip.open("rb") as stream:
        done = start("run", "-", "-m", weights, "-q", "--no-flow-consistency", cwd=tmp_path, stdin=stream)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads((tmp_path / "stdin_tfcseg" / "report.json").read_text())
    assert report["input"]["frames_decoded"] == FRAMES


def test_folder_with_a_corrupt_image_holds_the_last_one(weights, tmp_path):
    names = [f"frame{n}.png" for n in range(1, 12)]
    folder = folder_of_images(tmp_path / "frames", numbered_images(11), names)
    (folder / "frame7.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not an image")
    done = call("run", folder, "-o", tmp_path / "out", "-m", weights, "--mode", "image", "--no-flow-consistency")
    assert done.returncode == 0, done.stderr
    assert "frame7.png" in done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["input"]["frames_decoded"] == 11
    assert any("frame7.png" in warning for warning in report["warnings"])
    masks = [read_mask(tmp_path / "out" / "masks" / f"{n:08d}.png") for n in range(11)]
    assert np.array_equal(masks[6], masks[5])


def test_a_single_picture_has_nothing_that_could_change(weights, tmp_path):
    picture = folder_of_images(tmp_path / "one", numbered_images(1), ["0.png"]) / "0.png"
    done = call("run", picture, "-o", tmp_path / "out", "-m", weights)
    assert "\nlabel change      not measured\nflow consistency  not measured\n" in done.stderr
    assert "<p>1 frame at " in (tmp_path / "out" / "report.html").read_text()


def test_frames_are_upright(weights, tmp_path):
    source = write_clip(tmp_path / "flat.mp4", 3, size=(48, 80))
    run_ffmpeg("-display_rotation", "90", "-i", source, "-c", "copy", tmp_path / "phone.mp4")
    done = call("run", tmp_path / "phone.mp4", "-o", tmp_path / "out", "-m", weights)
    assert done.returncode == 0, done.stderr
    assert read_mask(tmp_path / "out" / "masks" / "00000000.png").shape == (80, 48)
    overlay = probe(tmp_path / "out" / "overlay.mp4")
    assert (overlay.height, overlay.width, overlay.rotation) == (80, 48, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_finished_and_nothing_half_written(weights, tmp_path, number):
    source = write_clip(tmp_path / "long.mp4", 200, size=(120, 160))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tfcseg", "run", source, "-o", out, "-m", weights, "--size", "128"]
    with interruptible(), subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob("masks/000000*.png")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert {path.name for path in out.iterdir()} == {"classes.json", "masks", "frames.csv", ".tfcseg"}
    assert "--resume" in stderr
    masks = sorted(out.glob("masks/*"))
    assert masks
    assert all(read_mask(mask).shape == (120, 160) for mask in masks)


def test_output_folder_that_cannot_be_made(clip, weights, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = call("run", clip, "-o", tmp_path / "file" / "out", "-m", weights)
    assert done.returncode == 1
    assert str(tmp_path / "file") in one_line(done)


def test_hostile_names(weights, tmp_path):
    name = "-weird ü 'name' %03d\n:x.mp4"
    write_clip(tmp_path / "plain.mp4", 3).rename(tmp_path / name)
    done = start("run", "-o", "out", "-m", weights, "--no-flow-consistency", "--", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["input"]["path"] == name


def test_a_reader_that_leaves_is_no_error(weights, clip, tmp_path):
    command = f"{sys.executable} -m tfcseg run {clip} -o {tmp_path / 'out'} -m {weights} --json -q | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "{"


def test_help_does_not_load_torch(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # narrower help shortens names
    code = "import sys, tfcseg.cli; print('torch' in sys.modules, 'cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == ["False", "False"]
    help_text = call("run", "--help")
    assert help_text.returncode == 0
    assert "--keyframe-interval" in help_text.stdout


def test_the_bar_of_a_run_counts_its_own_frames(clip, monkeypatch):
    told = []

    @contextmanager
    def progress(*, shown):
        yield lambda *arguments: told.append(arguments)

    monkeypatch.setattr("tfcseg.cli.run.progress", progress)
    info = probe(clip)
    with _listener(RunOptions(), shown=True) as listener:
        time.sleep(0.05)
        for frame in list(read_frames(clip))[-2:]:
            listener.on_frame(frame, info)
    assert [arguments[1] for arguments in told] == [FRAMES - 1, FRAMES]
    assert float(told[-1][-1].removesuffix(" fps")) <= 2 / 0.05
    for part, wanted in (((None, None), 10), ((None, 0.2), 5), ((0.07, 0.28), 5), ((0.2, None), 5), ((0.1, 9), 7)):
        with _listener(RunOptions(start_s=part[0], end_s=part[1]), shown=True) as listener:
            listener.on_frame(next(read_frames(clip)), info)
        assert told[-1][2] == wanted
        assert sum(1 for _ in read_frames(clip, start_s=part[0], end_s=part[1])) == wanted
