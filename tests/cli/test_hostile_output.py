"""Names from outside in what the program prints: neither markup nor control characters, and never a second line."""

import dataclasses
import json

import pytest
from rich.console import Console

from tests.helpers.command_line import call
from tests.helpers.media import write_clip
from tests.helpers.tiny_model import NAMES, build_tiny_network, tiny_card
from tests.helpers.vspw_fixture import make_vspw, write_predictions
from tfcseg.cli.console import plain
from tfcseg.labels.label_sets import LabelSet, distinct_palette
from tfcseg.spelling import visible
from tfcseg.weights.loading import save_model

HOSTILE = "[red]x[-red] :smile: \x1b[31m\x07\n\r\u202e\udcff"
SHOWN = "[red]x[-red] :smile: \\x1b[31m\\x07  \\u202e\\udcff"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model whose own names are hostile, as far as its card may be."""
    names = ("[red]sky[/red]", ":car:", *NAMES[2:])
    labels = LabelSet("[b]street", names, distinct_palette(len(names)))
    card = dataclasses.replace(tiny_card(), name="[blink]tiny", labels=labels, licence="[/]:warning:")
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(path, build_tiny_network(), card)
    return path


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")


def printed(done):
    """All lines that were printed, after a check that nothing invisible is in them."""
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    assert [line for line in lines if not line.isprintable()] == []
    return lines


def hostile_clip(folder, frames=2):
    return write_clip(folder / "plain.mp4", frames).rename(folder / f"{HOSTILE}.mp4")


@pytest.mark.parametrize(
    "text", [HOSTILE, "a\tb", "a\u2028b\x85c\x0cd", "\x9b31m", "[link=file:///x]y[/link]", "\\[x", "x\\"]
)
def test_text_stays_as_it_is_spelt_on_one_line(text):
    console = Console(force_terminal=True, color_system="truecolor", width=1000, file=None)
    with console.capture() as capture:
        console.print(plain(text))
    (line,) = capture.get().splitlines()
    assert line == visible(text)
    assert line.isprintable()


def test_harmless_text_is_not_touched():
    for text in ("", "Straße 5 – ü.mp4", "two  blanks", "日本.mp4", "😀"):
        assert visible(text) == text


def test_a_run_shows_names_as_they_are_spelt(weights, tmp_path):
    source, out = hostile_clip(tmp_path), tmp_path / HOSTILE
    done = call("run", source, "-o", out, "-m", weights, "-v")
    assert done.returncode == 0, done.stderr
    lines = printed(done)
    assert any(line.startswith("written") and SHOWN in line for line in lines)
    assert any("[red]sky[/red]" in line or ":car:" in line for line in lines if line.startswith("classes"))
    assert any(f"{SHOWN}.mp4: read at a constant" in line for line in lines)
    assert json.loads((out / "report.json").read_text())["input"]["path"] == str(source)


def test_an_error_is_one_line(tmp_path):
    done = call("run", tmp_path / f"{HOSTILE}.mp4", "-o", tmp_path / "out")
    assert done.returncode == 1
    printed(done)
    assert SHOWN in done.error


def test_usage_errors_are_one_line():
    for arguments in ([], ["run", "x", "--mode"], ["run", "x", "--size"], ["compare", "x", "--modes"]):
        done = call(*arguments, HOSTILE)
        assert done.returncode == 2
        printed(done)
        assert arguments == ["run", "x", "--size"] or "[red]" in done.error


def test_a_table_of_failures_has_a_line_for_each(weights, tmp_path):
    good = hostile_clip(tmp_path)
    bad = tmp_path / f"bad {HOSTILE}"
    bad.write_text("no video")
    done = call("run", bad, good, "-o", tmp_path / "out", "-m", weights, "--no-overlay", "--no-flow-consistency", "-q")
    assert done.returncode == 1
    rows = [line for line in printed(done) if SHOWN in line]
    assert len(rows) == 2, "the error, and its row in the table"


def test_an_evaluation_shows_names_as_they_are_spelt(tmp_path):
    name = "[red]x[-red] :smile: \x1b[31m"
    root = make_vspw(tmp_path / "vspw", {name: 3}).rename(tmp_path / HOSTILE)  # OpenCV crashes at such names
    masks = write_predictions(root, tmp_path / "masks")
    done = call("eval", root, "--predictions", masks, "--no-flow-consistency", "-o", tmp_path / "out")
    lines = printed(done)
    assert any(line.startswith(f"{SHOWN} · val") for line in lines)
    assert any(line.startswith("warning: too short: [red]x[-red] :smile: \\x1b[31m: ") for line in lines)
    as_json = call("eval", root, "--predictions", masks, "--no-flow-consistency", "-q", "--json")
    assert json.loads(as_json.stdout)["dataset"] == root.name
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["dataset"] == root.name


def test_a_comparison_shows_names_as_they_are_spelt(weights, tmp_path):
    source = hostile_clip(tmp_path, 4)
    done = call(
        "compare", source, "-o", tmp_path / HOSTILE, "-m", weights, "--no-flow-consistency", "--modes", "image,tfc"
    )
    assert done.returncode == 0, done.stderr
    lines = printed(done)
    assert any(line.startswith("[blink]tiny at ") for line in lines)
    assert any(line.startswith("written: ") and SHOWN in line for line in lines)


def test_publishing_and_listing_show_names_as_they_are_spelt(weights, tmp_path, monkeypatch):
    root = make_vspw(tmp_path / "vspw", {"0_hills": 2}).rename(tmp_path / HOSTILE)
    done = call("research", "publish", weights, "--name", "a", "--measure", root, "-o", tmp_path / "assets")
    assert done.returncode == 1, "its classes have no counterparts"
    printed(done)
    from tfcseg.research.publishing import publish

    publish(weights, tmp_path / "assets", name="[i]x", description="", measured={"tfc_miou": "[red]1"}, default=False)
    monkeypatch.setattr("tfcseg.weights.registry.__file__", str(tmp_path / "tfcseg" / "weights" / "registry.py"))
    shown = call("models")
    assert shown.returncode == 0, shown.stderr
    row = next(line for line in printed(shown) if line.startswith("[i]x *"))
    assert "–" in row, "a score that is no number is none"
    assert "[/]:warning:" in row
    assert any(
        line.startswith("measured") and line.endswith("on unnamed data") for line in printed(call("models", "[i]x"))
    )
