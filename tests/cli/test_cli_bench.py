"""``tfcseg bench`` as a user calls it: what it says, where it writes it, what it refuses. Never how fast."""

import json
import re

import pytest

from tests.helpers.command_line import call
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.benchmark.clips import make_clip
from tfcseg.benchmark.model_only import OTHER, STEPS

PARTS = "model,end-to-end,breakdown,limits"
FEW = ("--frames", 4, "--clip-frames", 4, "--plain-frames", 1, "--rounds", 1)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    make_clip(folder / "clip.mp4", (64, 96), 8)
    write_tiny_model(folder / "tiny.safetensors")
    return folder


@pytest.fixture(scope="module")
def measured(media):
    pytest.importorskip("transformers")
    done = call(
        "bench",
        media / "clip.mp4",
        "--model",
        media / "tiny.safetensors",
        *FEW,
        "--only",
        PARTS,
        "--json",
        "-o",
        media / "b.json",
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def content(measured):
    return json.loads(measured.stdout)


def test_json_is_all_there_is_on_stdout(measured, content, media):
    assert content == json.loads((media / "b.json").read_text(encoding="utf-8"))
    assert content["kind"] == "bench"
    assert measured.stderr == f"written: {media / 'b.json'}\n"


def test_contenders_and_their_ratios(content):
    for part in ("model_only", "end_to_end"):
        speeds = content[part]
        assert list(speeds) == ["plain", "image", "tfc"]
        for first, second in (("image", "plain"), ("tfc", "plain"), ("tfc", "image")):
            ratio = content["ratios"][part][f"{first}/{second}"]
            assert ratio == pytest.approx(speeds[first]["fps"] / speeds[second]["fps"], rel=0.05)
        assert {name: speed["frames"] for name, speed in speeds.items()} == {"plain": 1, "image": 4, "tfc": 4}
        assert all(speed["ms_per_frame"]["samples"] == 1 for speed in speeds.values())


def test_breakdown_limits_and_costs(content):
    assert list(content["breakdown"]) == ["image", "tfc", "around the network"]
    assert set(content["breakdown"]["tfc"]) == {*STEPS, OTHER}
    assert {"decode", "render", "encode", "masks"} < set(content["breakdown"]["around the network"])
    limits = content["limits"]
    assert {"decode_fps", "decode_encode_fps", "matrix_gflops_per_s", "gflops_per_frame"} < set(limits)
    assert all(limits["gflops_per_frame"][name] > 0 for name in ("plain", "image", "tfc"))
    assert set(limits["share_of_ceiling"]) == {"image", "tfc"}
    assert set(content["costs"]) == {"flow_consistency", "masks", "flow_consistency and masks"}
    assert set(content["network_share"]) == {"plain", "image", "tfc"}


def test_facts_without_places_of_the_machine(content, media):
    facts = {"tfcseg", "model", "device", "device_name", "precision", "threads", "versions", "resolution", "options"}
    assert facts <= set(content)
    assert content["input"]["name"] == "clip.mp4"
    assert content["plain"]["weights"].startswith("random"), "the tiny model is no SegFormer"
    assert content["random_weights"] is False
    assert content["left_out"]
    assert str(media) not in json.dumps(content)
    assert not re.search(r"/(tmp|home|root)/", json.dumps(content))


def test_tables_for_people(media):
    done = call("bench", media / "clip.mp4", "--model", media / "tiny.safetensors", *FEW, "--only", "breakdown", "-q")
    assert done.returncode == 0, done.stderr
    assert "low features" in done.stdout
    assert "not asked for: model; not asked for: end-to-end" in done.stdout
    assert "file to files" not in done.stdout


def test_random_weights_of_any_size():
    arguments = (
        "--synthetic",
        "96x64",
        "--size",
        64,
        "--backbone",
        "mit_b1",
        "--classes",
        7,
        "--updated-fraction",
        0.1,
    )
    done = call("bench", *arguments, *FEW, "--only", "model", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["random_weights"] is True
    assert (content["model"]["backbone"], content["model"]["classes"]) == ("mit_b1", 7)
    assert content["input"]["name"] == "synthetic"
    assert content["resolution"] == {"source": [64, 96], "network": [64, 96]}
    assert content["updated_fraction"] == pytest.approx(10, abs=1)
    assert content["end_to_end"] == content["breakdown"] == content["memory"] == {}


@pytest.mark.slow
def test_memory_of_every_contender(media):
    pytest.importorskip("transformers")
    done = call("bench", media / "clip.mp4", "--model", media / "tiny.safetensors", *FEW, "--only", "memory", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["memory"]
    assert list(found) == ["plain", "image", "tfc"]
    for memory in found.values():
        assert 0 < memory["before_mib"] <= memory["peak_mib"]


SLOW_GROWTH = [pytest.param(what, marks=pytest.mark.slow) for what in ("resolution", "classes")]


@pytest.mark.parametrize("what", ["length", *SLOW_GROWTH])
def test_growth_is_measured_and_drawn(what, media, tmp_path):
    pytest.importorskip("matplotlib")
    value = {"length": 5, "resolution": 48, "classes": 3}[what]
    arguments = ("--scaling", what, "--values", value, "-o", tmp_path / "growth", "--size", 32, "--json")
    video = () if what == "resolution" else (media / "clip.mp4",)
    done = call("bench", *video, "--model", media / "tiny.safetensors", *FEW, *arguments)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content == json.loads((tmp_path / "growth" / f"scaling-{what}.json").read_text(encoding="utf-8"))
    assert {point["value"] for point in content["points"]} == {value}
    assert all(point["error"] is None and point["peak_mib"] > 0 for point in content["points"])
    assert {point["contender"] for point in content["points"]} >= {"tfc"}
    for suffix in (".png", ".svg"):
        assert (tmp_path / "growth" / f"scaling-{what}{suffix}").stat().st_size > 1000
    if what == "length":
        assert content["points"][0]["frames"] == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-",), "read only once"),
        (("--only", "speed"), "no part 'speed'"),
        (("--only", ""), "the argument after '--only' is empty"),
        (("--backbone", "vgg", "--synthetic", "96x64"), "no backbone 'vgg'"),
        (("--backbone", "mit_b0", "--model", "other"), "give only one of them"),
        (("--synthetic", "480p"), "is not a frame size"),
        (("clip.mp4", "--synthetic", "96x64"), "leave one out"),
        (("--rounds", -1), "less than 1"),
        (("--rounds", 0), "less than 1"),
        (("--frames", 0), "less than 1"),
        (("--updated-fraction", 1.5), "not between 0 and 1"),
        (("--scaling", "length"), "give a folder"),
        (("--values", "5"), "--values needs --scaling"),
        (("--scaling", "time", "-o", "x"), "no scaling 'time'"),
        (("--scaling", "length", "--values", "ten", "-o", "x"), "'ten' is not a whole number"),
        (("--scaling", "classes", "--values", "1000", "-o", "x"), "not between 2 and 254"),
        (("--precision", "fp8"), "no precision 'fp8'"),
        (("--scaling", "length", "--only", "model", "-o", "x"), "--only has no effect"),
        (("clip.mp4", "--scaling", "resolution", "-o", "x"), "makes its own clips"),
    ],
)
def test_usage_errors(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("bench", *arguments)
    assert done.returncode == 2
    assert message in done.error
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_results_are_kept_unless_asked(media, tmp_path):
    kept = tmp_path / "b.json"
    kept.write_text("mine")
    done = call(
        "bench", media / "clip.mp4", "--model", media / "tiny.safetensors", *FEW, "--only", "breakdown", "-o", kept
    )
    assert done.returncode == 1
    assert "already holds results (b.json); use --overwrite" in done.error
    assert kept.read_text() == "mine"
    done = call("bench", tmp_path / "none.mp4", *FEW, "-o", kept, "--overwrite")
    assert done.returncode == 1
    assert kept.read_text() == "mine"


def test_a_video_that_cannot_be_read(tmp_path):
    done = call("bench", tmp_path / "none.mp4", *FEW)
    assert done.returncode == 1
    assert "none.mp4" in done.error
