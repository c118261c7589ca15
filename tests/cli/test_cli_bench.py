"""``tfcseg bench`` as a user calls it: what it says, where it writes it, what it refuses. Never how fast."""

import json
import re

import pytest

from tests.helpers.command_line import call
from tests.helpers.media import write_video
from tests.helpers.tiny_model import moving_images, write_tiny_model

PARTS = "model,end-to-end"
FEW = ("--frames", 4, "--clip-frames", 4, "--plain-frames", 1, "--rounds", 1)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    write_video(folder / "clip.mp4", moving_images(8, (64, 96)))
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
    model = ("--model", media / "tiny.safetensors", "--precision", "fp32")
    done = call("bench", media / "clip.mp4", *model, *FEW, "--only", "model", "-q")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ tiny, tfc +[0-9.]+ +[0-9.]+×", done.stdout, re.MULTILINE)
    assert "not asked for: end-to-end; not asked for: memory" in done.stdout
    assert "file to files" not in done.stdout


def test_random_weights_of_any_size(media):
    random = ("--size", 64, "--backbone", "mit_b1", "--classes", 7)
    done = call("bench", media / "clip.mp4", *random, *FEW, "--only", "model", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["random_weights"] is True
    assert (content["model"]["backbone"], content["model"]["classes"]) == ("mit_b1", 7)
    assert content["resolution"] == {"source": [64, 96], "network": [64, 96]}
    assert content["end_to_end"] == content["memory"] == {}


@pytest.mark.slow
def test_memory_of_every_contender(media):
    pytest.importorskip("transformers")
    done = call("bench", media / "clip.mp4", "--model", media / "tiny.safetensors", *FEW, "--only", "memory", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["memory"]
    assert list(found) == ["plain", "image", "tfc"]
    for memory in found.values():
        assert 0 < memory["before_mib"] <= memory["peak_mib"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-",), "read only once"),
        (("https://host/clip.mp4",), "https:/host/clip.mp4: is an address, but only files are read here"),
        (("--only", "speed"), "no part 'speed'"),
        (("--only", ""), "the argument after '--only' is empty"),
        (("--backbone", "vgg"), "no backbone 'vgg'"),
        (("--backbone", "mit_b0", "--model", "other"), "give only one of them"),
        (("--classes", 7), "--classes is for random weights; add --backbone, or leave it out"),
        (("--rounds", -1), "less than 1"),
        (("--rounds", 0), "less than 1"),
        (("--frames", 0), "less than 1"),
        (("--precision", "fp8"), "no precision 'fp8'"),
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
    done = call("bench", media / "clip.mp4", "--model", media / "tiny.safetensors", *FEW, "--only", "model", "-o", kept)
    assert done.returncode == 1
    assert done.error == f"{str(kept)!r} already exists; use --overwrite or choose another output"
    assert kept.read_text() == "mine"
    done = call("bench", tmp_path / "none.mp4", *FEW, "-o", kept, "--overwrite")
    assert done.returncode == 1
    assert kept.read_text() == "mine"


def test_a_video_that_cannot_be_read(tmp_path):
    done = call("bench", tmp_path / "none.mp4", *FEW)
    assert done.returncode == 1
    assert "none.mp4" in done.error
