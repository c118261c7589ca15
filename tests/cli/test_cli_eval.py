"""``tfcseg eval`` as a user calls it, on synthetic VSPW folders."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch

from tests.helpers import vspw_fixture as fixture
from tests.helpers.command_line import call
from tests.helpers.tiny_model import write_tiny_model
from tests.helpers.vspw_fixture import make_vspw, write_predictions
from tfcseg.labels.label_sets import LabelSet
from tfcseg.machine import cpu_name
from tfcseg.weights.loading import load_model, save_model

KEYS = {
    *(
        "miou",
        "miou_all",
        "wiou",
        "wiou_all",
        "pixel_accuracy",
        "pixel_accuracy_all",
        "vc8",
        "vc16",
        "flow_consistency",
        "optical_flow",
    ),
    *("label_change", "classes_counted", "classes_counted_all", "unpredictable", "windows", "windows_dropped"),
    *("videos", "frames", "frames_missing", "skipped", "per_class", "per_class_all", "protocol", "mode", "split"),
    *("schema", "dataset"),
}
PROVENANCE = {"tfcseg", "versions", "model", "options", "predictions", "label_map", "threads", "device_name"}
TO_VSPW = {"sky": "sky", "road": "grass", "tree": "tree", "person": "person", "car": "car"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_vspw(tmp_path_factory.mktemp("data") / "vspw", {"0_hills": 18, "1_road": 9}, size=(48, 64))


@pytest.fixture(scope="module")
def perfect(root, tmp_path_factory):
    """The ground truth itself, as another program would write it."""
    return write_predictions(root, tmp_path_factory.mktemp("perfect"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Options that choose a small model and say what its classes are in VSPW."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "map.json").write_text(json.dumps(TO_VSPW))
    return ["-m", write_tiny_model(folder / "tiny.safetensors"), "--label-map", folder / "map.json"]


def scores(done):
    """Result of --json, without speed and provenance."""
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.pop("speed")["fps"] > 0
    for key in PROVENANCE:
        del result[key]
    return result


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------------------------- what it writes


def test_perfect_predictions_score_100_and_everything_is_written(root, perfect, tmp_path):
    done = call("eval", root, "--predictions", perfect, "-o", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads((tmp_path / "out" / "eval.json").read_text()) == result
    assert set(result) == KEYS | PROVENANCE | {"speed"}
    for score in ("miou", "miou_all", "wiou", "pixel_accuracy", "vc8", "vc16"):
        assert result[score] == 100
    assert 50 < result["flow_consistency"] <= 100
    assert result["windows"] == {"8": {"counted": 11, "dropped": 2}, "16": {"counted": 2, "dropped": 1}}
    assert (result["videos"], result["frames"], result["classes_counted"]) == (2, 27, 5)
    assert result["per_class"] == dict.fromkeys(TO_VSPW.values(), 100)
    assert [skip["kind"] for skip in result["skipped"]] == ["too short"]
    assert (result["protocol"], result["mode"], result["split"]) == ("vspw", "predictions", "val")
    assert set(result["speed"]) == {"wall_s", "fps", "model_s", "model_fps"}
    assert [row["video"] for row in rows(tmp_path / "out" / "per_video.csv")] == ["0_hills", "1_road"]
    assert len(rows(tmp_path / "out" / "per_class.csv")) == 124


def test_several_threads_score_the_same(root, model, torch_threads):
    """Intervals are then computed at the same time."""
    results = []
    for threads in (1, 3):
        torch_threads(threads)
        done = call("eval", root, *model, "--sides", "past", "--no-flow-consistency", "--json", "-q")
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    alone, together = results
    assert together["frames"] == alone["frames"] == 27
    for score in ("miou", "pixel_accuracy", "vc8"):
        assert together[score] == pytest.approx(alone[score], abs=0.2)
    assert 0 < alone["pixel_accuracy"] < 100


def test_scores_say_where_they_come_from(root, model, perfect, tmp_path):
    """A score without its model, options and machine compares with nothing."""
    command = ("eval", root, "--limit", 1, "--no-flow-consistency", "-q", "-o")
    assert call(*command, tmp_path / "own", *model, "--mode", "reuse", "--size", 96).returncode == 0
    assert call(*command, tmp_path / "other", "--predictions", perfect).returncode == 0
    own, other = (json.loads((tmp_path / name / "eval.json").read_text()) for name in ("own", "other"))
    assert own.keys() == other.keys() == KEYS | PROVENANCE | {"speed"}
    assert own["model"]["name"] == "tiny"
    assert own["model"]["sha256"] == hashlib.sha256(model[1].read_bytes()).hexdigest()
    assert own["options"].items() >= {"mode": "reuse", "size": 96, "keyframe_interval": 4, "device": "cpu"}.items()
    assert own["label_map"] == str(model[-1])
    assert own["threads"] >= 1
    assert own["versions"]["torch"] == torch.__version__
    assert own["dataset"] == root.name
    assert other["predictions"] == str(perfect)
    assert [other[key] for key in ("model", "options", "label_map", "threads")] == [None] * 4
    assert own["device_name"] == other["device_name"] == cpu_name()
    assert own["tfcseg"] == other["tfcseg"] == version("tfcseg")


def test_the_table_never_shows_vc_without_miou(root, perfect):
    done = call("eval", root, "--predictions", perfect, "--no-flow-consistency", "-q")
    assert done.returncode == 0
    assert done.stderr == "warning: too short: 1_road: 9 frames; VC16 needs 17 by protocol vspw\n"
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    with_vc = [line for line in done.stdout.splitlines() if "VC" in line]
    assert len(with_vc) == 1
    assert with_vc[0].split() == ["VC", "at", "mIoU", "100.00", "100.00", "100.00"]
    names = {line[0].strip() for line in lines}
    assert {"mIoU", "wIoU", "pixel accuracy", "classes counted", "windows counted", "windows dropped"} <= names
    assert {"videos scored", "frames scored", "left out: too short", "fps end to end", "fps model only"} <= names
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_protocols_differ_in_the_last_window(root, perfect):
    strict = scores(
        call("eval", root, "--predictions", perfect, "--protocol", "strict", "--no-flow-consistency", "--json")
    )
    assert strict["protocol"] == "strict"
    assert strict["windows"] == {"8": {"counted": 13, "dropped": 0}, "16": {"counted": 3, "dropped": 0}}
    assert strict["flow_consistency"] is None


def test_limit_takes_the_first_videos(root, perfect):
    limited = scores(call("eval", root, "--predictions", perfect, "--limit", 1, "--no-flow-consistency", "--json"))
    assert (limited["videos"], limited["frames"], limited["skipped"]) == (1, 18, [])


# ------------------------------------------------------------------------------------------------------- a model


def test_saved_masks_score_like_the_model_that_made_them(root, model, tmp_path):
    own = scores(call("eval", root, *model, "--save-masks", tmp_path / "masks", "--no-flow-consistency", "--json"))
    assert own["mode"] == "tfc"
    assert 0 < own["miou"] < 100
    assert len(list((tmp_path / "masks" / "0_hills").glob("*.png"))) == 18
    again = scores(call("eval", root, "--predictions", tmp_path / "masks", "--no-flow-consistency", "--json"))
    for score in ("miou_all", "vc8", "vc16", "windows", "pixel_accuracy_all"):
        assert again[score] == own[score]


@pytest.fixture(scope="module")
def runs(root, model, tmp_path_factory):
    """Folders of runs on the videos of the data set, with the model's own classes."""
    folder = tmp_path_factory.mktemp("runs")
    for video in ("0_hills", "1_road"):
        frames = root / "data" / video / "origin"
        written = ("--mask-names", "source", "--export", "video", "--no-overlay", "--no-report", "-q")
        done = call("run", frames, *model[:2], "--mode", "image", "-o", folder / video, *written)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("lost", ["masks", "labels.mkv"])
def test_the_folders_of_runs_score_like_the_model_that_made_them(root, model, runs, lost, tmp_path):
    folder = shutil.copytree(runs, tmp_path / "runs")
    for path in folder.glob(f"*/{lost}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    quick = ("--no-flow-consistency", "--json")
    own = scores(call("eval", root, *model, "--mode", "image", *quick))
    found = scores(call("eval", root, "--predictions", folder, *model[2:], *quick))
    assert own["unpredictable"] == found["unpredictable"]
    assert found | {"mode": "image"} == own


def test_folders_of_runs_need_one_set_of_classes_that_maps_to_the_data_set(root, model, runs, perfect, tmp_path):
    folder = shutil.copytree(runs, tmp_path / "runs")
    path = folder / "1_road" / "classes.json"
    done = call("eval", root, "--predictions", perfect, *model[2:])
    assert done.returncode == 2
    assert "--label-map changes nothing" in done.error
    path.write_text(path.read_text().replace("person", "thing"))
    done = call("eval", root, "--predictions", folder, *model[2:])
    assert done.returncode == 1
    assert "1_road' have different classes" in done.error
    first = (folder / "0_hills" / "classes.json").rename(tmp_path / "classes.json")
    done = call("eval", root, "--predictions", folder, *model[2:])
    assert done.returncode == 1
    assert "1_road' must both be folders of runs with classes.json, or neither" in done.error
    first.rename(folder / "0_hills" / "classes.json")
    shutil.copy(path, folder / "0_hills")
    done = call("eval", root, "--predictions", folder)
    assert done.returncode == 1
    assert "0_hills/classes.json' to 'vspw'" in done.error
    assert "--label-map" in done.error


def test_interval_1_is_the_image_mode(root, model):
    one = scores(call("eval", root, *model, "--keyframe-interval", 1, "--limit", 1, "--no-flow-consistency", "--json"))
    image = scores(call("eval", root, *model, "--mode", "image", "--limit", 1, "--no-flow-consistency", "--json"))
    four = scores(call("eval", root, *model, "--limit", 1, "--no-flow-consistency", "--json"))
    assert one | {"mode": "image"} == image
    assert four["per_class_all"] != image["per_class_all"]


def test_a_model_of_other_classes_needs_a_label_map(root, model, tmp_path):
    other = load_model(model[1], device="cpu", fold=False)
    names = tuple(f"thing {number}" for number in range(len(other.labels)))
    card = replace(other.card, labels=LabelSet("things", names, other.labels.palette))
    save_model(tmp_path / "other.safetensors", other.network, card)
    done = call("eval", root, "-m", tmp_path / "other.safetensors")
    assert done.returncode == 1
    assert "--label-map" in done.error


# -------------------------------------------------------------------------------------------- what is wrong with data


def test_missing_data_is_counted_and_fails_unless_it_is_accepted(perfect, tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_hills": 18, "1_road": 9}, size=(48, 64))
    fixture.lose_frame(root, "0_hills", 170)
    fixture.lose_video(root, "1_road")
    command = ["eval", root, "--predictions", perfect, "--no-flow-consistency", "-o", tmp_path / "out"]
    done = call(*command)
    assert done.returncode == 1
    assert "left out: missing frame" in done.stdout
    assert "left out: missing video" in done.stdout
    *notes, last = done.stderr.splitlines()
    assert any("0_hills/00000171" in note for note in notes)
    assert last == (
        "error: some data could not be scored: missing frame (1), missing video (1); --skip-bad accepts this"
    )
    accepted = scores(call(*command, "--skip-bad", "--json", "--overwrite"))
    assert (accepted["videos"], accepted["frames"], accepted["miou"]) == (1, 17, 100)
    assert {skip["kind"] for skip in accepted["skipped"]} == {"missing frame", "missing video"}


def test_damage_stops_with_one_line_that_names_the_file_unless_it_is_accepted(root, tmp_path):
    predictions = write_predictions(root, tmp_path / "predictions")
    fixture.cut_file(predictions / "0_hills" / "00000170.png")
    done = call("eval", root, "--predictions", predictions, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "00000170.png" in done.error
    assert not (tmp_path / "out").exists()
    accepted = scores(call("eval", root, "--predictions", predictions, "--skip-bad", "--no-flow-consistency", "--json"))
    assert [(skip["kind"], skip["frame"]) for skip in accepted["skipped"] if skip["frame"]] == [
        ("bad frame", "00000170")
    ]


def test_a_mask_that_is_too_large_is_named_or_left_out(model, tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_hills": 8})
    fixture.claim_size(fixture.mask_path(root, "0_hills", 166))
    done = call("eval", root, *model, "--no-flow-consistency")
    assert done.returncode == 1
    assert "00000166.png': pictures of 20000x20000 are not read, 100 million pixels is the limit" in done.error
    done = call("eval", root, *model, "--no-flow-consistency", "--skip-bad", "--json")
    assert (done.returncode, json.loads(done.stdout)["frames"]) == (0, 7)


@pytest.mark.parametrize("mode", ["tfc", "image"])
def test_an_image_of_another_size_is_named_or_left_out(model, tmp_path, mode):
    root = make_vspw(tmp_path / "vspw", {"0_hills": 18}, size=(48, 64))
    fixture.make_image_smaller(fixture.image_path(root, "0_hills", 170))
    done = call("eval", root, *model, "--mode", mode)
    assert done.returncode == 1
    assert "0_hills/00000170: the image is 56×40, those before it are 64×48" in done.stderr
    result = scores(call("eval", root, *model, "--mode", mode, "--skip-bad", "--json"))
    assert [(skip["kind"], skip["frame"]) for skip in result["skipped"]] == [("bad frame", "00000170")]
    assert result["frames"] == 17


def test_a_folder_that_is_none_is_named(tmp_path):
    done = call("eval", tmp_path, "--predictions", tmp_path)
    assert done.returncode == 1
    assert str(tmp_path) in done.error


# ------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--protocol", "loose"], "there are vspw, strict"),
        (["--mode", "image"], "--mode"),
        (["--size", "64"], "--size"),
        (["--save-masks", "{predictions}"], "--save-masks"),
        (["--save-masks", "{root}/data"], "--save-masks"),
        (["-o", "{root}"], "the input"),
    ],
)
def test_senseless_options_are_refused_before_any_work(root, perfect, options, said):
    options = [option.format(root=root, predictions=perfect) for option in options]
    done = call("eval", root, "--predictions", perfect, *options)
    assert done.returncode == 2
    assert said in done.error
    assert done.stdout == ""


def test_no_video_at_all_is_a_usage_error(root, perfect):
    assert call("eval", root, "--predictions", perfect, "--limit", 0).returncode == 2


def test_results_are_not_replaced_without_being_asked(root, perfect, tmp_path):
    (tmp_path / "eval.json").write_text("mine")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "other.png").write_text("mine")
    command = ["eval", root, "--predictions", perfect, "--limit", 1, "--no-flow-consistency"]
    for place in (["-o", tmp_path], ["--save-masks", tmp_path / "masks"]):
        done = call(*command, *place)
        assert done.returncode == 1
        assert "--overwrite" in done.error
    assert (tmp_path / "eval.json").read_text() == "mine"
    assert call(*command, "-o", tmp_path, "--overwrite").returncode == 0
    assert json.loads((tmp_path / "eval.json").read_text())["miou"] == 100


# ------------------------------------------------------------------------------------------------------- processes


def test_predictions_are_scored_without_torch(root, perfect):
    code = (
        "import sys; from tfcseg.cli import app\n"
        f"try: app(['eval', {str(root)!r}, '--predictions', {str(perfect)!r}, '--json'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["miou"] == 100


def test_the_folder_of_one_video_is_not_the_one_of_all(root, perfect):
    one = next(perfect.iterdir())
    done = call("eval", root, "--predictions", one, "--skip-bad")
    assert done.returncode == 1
    assert done.error.startswith(f"{one}: holds no folder of a video, such as '")
