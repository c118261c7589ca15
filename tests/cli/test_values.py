"""What people type after options, in every customary form."""

import json
from dataclasses import replace
from io import StringIO

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.helpers.command_line import call
from tests.helpers.media import write_clip
from tests.helpers.tiny_model import NAMES, build_tiny_network, tiny_card, write_tiny_model
from tfcseg.cli.console import facts_table
from tfcseg.cli.options import one_of, seconds, some_of, split_list, whole_numbers
from tfcseg.errors import DataError, UsageError
from tfcseg.labels.label_sets import LabelSet, distinct_palette
from tfcseg.weights.loading import save_model
from tfcseg.weights.registry import locate_weights


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("90", 90),
        ("90.5", 90.5),
        (".5", 0.5),
        ("0:01", 1),
        ("1:30", 90),
        ("90:00", 5400),
        ("1:02:03.5", 3723.5),
        ("90s", 90),
        (" 1.5 m ", 90),
        ("1m30s", 90),
        ("1H 2M 3.5S", 3723.5),
    ],
)
def test_times_in_every_customary_form(typed, expected):
    assert seconds(typed) == expected


@pytest.mark.parametrize("typed", ["", "-1", "1:60", "1:70:00", "::", "nan", "1e3", "s", "2h30", "1:2:3:4", "9" * 400])
def test_what_is_no_time_is_said(typed):
    with pytest.raises(typer.BadParameter, match="is not a time"):
        seconds(typed)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59_999))
def test_clock_and_units_agree(hours, minutes, milliseconds):
    exact = (hours * 3_600_000 + minutes * 60_000 + milliseconds) / 1000
    fraction = f"{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"
    assert seconds(f"{hours}:{minutes:02d}:{fraction}") == exact
    assert seconds(f"{hours}h{minutes}m{fraction}s") == exact
    assert seconds(str(exact)) == exact


def test_lists_take_commas_and_repetition():
    assert split_list(["a, b", "c,"]) == ["a", "b", "c"]
    assert split_list(None) == split_list([]) == []
    assert whole_numbers(["2,4", "8"]) == [2, 4, 8]
    assert some_of("mode", ("tfc", "image"), "", default="").callback(["TFC", " Image"]) == ["tfc", "image"]
    with pytest.raises(typer.BadParameter, match="the list is empty"):
        split_list(["", ","])
    with pytest.raises(typer.BadParameter, match=r"'2\.5' is not a whole number"):
        whole_numbers(["1,2.5"])


def test_a_list_of_commas_alone_is_refused_everywhere(clip, tmp_path):
    for name in ("--export", "--classes", "--exclude"):
        done = call("run", clip, name, ",", "-o", tmp_path / "out")
        assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
        assert f"'{name}': the list is empty; leave the option out for its default" in done.error


def test_names_are_matched_without_regard_to_case():
    assert one_of("mode", ("tfc",))("TFC") == "tfc"
    assert locate_weights("DEFAULT") == locate_weights("Tfc-Mosaic")
    with pytest.raises(UsageError, match="did you mean tfc"):
        one_of("mode", ("tfc",))("TCF")
    labels = LabelSet("odd", ("dog", "Dog", "chest of drawers, chest"), distinct_palette(3))
    assert labels.indices("Dog,dog, DOG") == [1, 0, 0]
    assert labels.indices(["dog", "Chest of drawers, chest"]) == [0, 2]
    with pytest.raises(DataError, match="no class 'cats' in label set 'odd'"):
        labels.indices(["dog,cats"])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "street.mp4", 12)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def test_a_class_with_a_comma_in_its_name_can_be_chosen(clip, tmp_path):
    card = tiny_card()
    names = ("door, double door", *NAMES[1:])
    card = replace(card, labels=LabelSet("odd", names, card.labels.palette))
    save_model(tmp_path / "odd.safetensors", build_tiny_network(), card)
    command = ("run", clip, "-m", tmp_path / "odd.safetensors", "--end", "0:00.2", "--no-flow-consistency")
    for name, chosen in {"first": ["Door, double door"], "both": ["road,tree", "door, double door"]}.items():
        options = [word for each in chosen for word in ("--classes", each)]
        assert call(*command, "-o", tmp_path / name, *options).returncode == 0
    assert "'double door'" in call(*command, "-o", tmp_path / "none", "--classes", "double door").stderr


def test_classes_repeated_and_with_commas_draw_the_same(clip, weights, tmp_path):
    first, second, third = NAMES[:3]
    spelt = {
        "list": ("--classes", f"{first},{second},{third}"),
        "repeated": ("--classes", first.upper(), "--classes", second, "--classes", f" {third} "),
        "lost": ("--classes", third),
    }
    videos = {}
    for name, options in spelt.items():
        done = call(
            "run", clip, "-o", tmp_path / name, "-m", weights, "--end", "0:00.2", "--no-flow-consistency", *options
        )
        assert done.returncode == 0, done.stderr
        videos[name] = (tmp_path / name / "overlay.mp4").read_bytes()
    assert videos["list"] == videos["repeated"] != videos["lost"]
    resumed = call(
        "run",
        clip,
        "-o",
        tmp_path / "list",
        "-m",
        weights,
        "--end",
        "0.2s",
        "--no-flow-consistency",
        *spelt["repeated"],
        "--resume",
    )
    assert resumed.returncode == 0, resumed.stderr


def test_recomputed_points_are_shown_where_there_are_any(clip, weights, tmp_path):
    for mode in ("image", "reuse", "TFC"):
        out = tmp_path / mode
        done = call("run", clip, "-o", out, "-m", weights, "--mode", mode, "--end", "0.3")
        page = (out / "report.html").read_text()
        assert ("updated " in done.stderr) == (mode == "TFC"), done.stderr
        for name in ('id="figure-updated_fraction"', 'data-lane="updated_fraction"'):
            assert (name in page) == (mode == "TFC")
    assert json.loads((tmp_path / "reuse" / "report.json").read_text())["stability"]["updated_fraction"] == 0


def test_a_folder_named_like_a_file_is_taken_if_it_is_there(clip, weights, tmp_path):
    (tmp_path / "take.mp4").mkdir()
    done = call("run", clip, "-o", tmp_path / "take.mp4", "-m", weights, "--end", "0.1", "--no-flow-consistency", "-q")
    assert done.returncode == 0, done.stderr
    refused = call("run", clip, "-o", tmp_path / "other.mp4", "-m", "no-such-model")
    assert refused.returncode == 2
    assert refused.error.endswith(f"give {str(tmp_path / 'other')!r}")
    assert not (tmp_path / "other.mp4").exists()


def test_models_explains_its_scores_and_lists_classes():
    listed = call("models")
    assert listed.returncode == 0, listed.stderr
    assert "mIoU (accuracy)" in listed.stdout
    assert "76.8" in listed.stdout
    one = call("models", "TFC-lite0")
    assert one.returncode == 0, one.stderr
    assert "person" in one.stdout
    assert "on camvid_street/val, short side 480 px, " in one.stdout
    assert "float32" in one.stdout, "the default model was measured in another precision"
    assert "Apache-2.0" in one.stdout
    content = json.loads(call("models", "default", "--json").stdout)
    assert content["classes"] == len(content["class_names"]) == len(content["palette"])
    assert call("models", "tfc-light0").error == "no model or weights file 'tfc-light0'; did you mean tfc-lite0?"


def test_decisions_say_once_what_became_of_the_sound(weights, tmp_path):
    clip = write_clip(tmp_path / "sound.mp4", 6)
    done = call("run", clip, "-o", tmp_path / "out", "-m", weights, "--no-flow-consistency", "-v", "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("overlay.mp4: H.264; sound: ") == 1


@pytest.mark.parametrize("columns", [80, 40])
def test_models_fit_a_terminal_of_80_columns_and_are_whole_on_others(monkeypatch, columns):
    printed = StringIO()
    console = Console(width=columns, file=printed, force_terminal=True, color_system=None)
    monkeypatch.setattr("tfcseg.cli.console.Console", lambda **options: console)
    assert call("models").returncode == 0
    lines = printed.getvalue().splitlines()
    (shown,) = (line.split() for line in lines if line.startswith("tfc-mosaic *"))
    assert shown == ["tfc-mosaic", "*", "mosaic", "51", "4.3", "M", "64.4", "98.1", "97.7", "Apache-2.0"]
    assert max(map(len, lines)) <= 80


def test_no_line_of_a_summary_breaks_between_a_number_and_its_unit():
    value = "grass 53 %, traffic light 22 %, [b]x[/b] <0.01 %, 14.6 fps, 100 px, 8.7 MB"
    for width in range(30, 100):
        console = Console(width=width)
        with console.capture() as printed:
            console.print(facts_table([("classes", value)]))
        lines = [line.removeprefix("classes").strip() for line in printed.get().splitlines()]
        assert " ".join(lines) == value
        assert not any(line.startswith(("%", "fps", "px", "MB")) for line in lines)
