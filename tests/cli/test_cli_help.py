"""Help, hints and completion: examples work as pasted, typing errors are answered in one line, nothing loads torch."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from tests.helpers.command_line import call
from tests.helpers.media import folder_of_images, numbered_images, write_clip, write_video
from tests.helpers.segformer_reference import build_reference
from tests.helpers.still_fixture import paint, paint_mask, write_stills
from tests.helpers.tiny_model import write_tiny_model
from tests.helpers.tiny_teacher import write_deeplab, write_teacher
from tests.helpers.vspw_fixture import make_vspw
from tfcseg.cli import app, options
from tfcseg.cli.options import one_of
from tfcseg.labels.label_sets import FACADES8, SCENES
from tfcseg.media.masks import write_mask
from tfcseg.model.options import MODES
from tfcseg.runs.options import default_classes
from tfcseg.weights.device import PRECISIONS
from tfcseg.weights.loading import resolve_precision

ROOT = Path(__file__).parents[2]
_TOP = get_command(app).commands
COMMANDS = {name: command for name, command in _TOP.items() if name != "research"}
COMMANDS |= {f"research {name}": command for name, command in _TOP["research"].commands.items()}


LONG = {"adapt", "compare", "train", "research publish", "bench", "research clips"}
"""Commands whose examples take several seconds each."""


def examples():
    for name, command in COMMANDS.items():
        found = re.findall(r"Example: (.+)", command.help)
        assert found, f"{name} has no example"
        for line in found:
            yield pytest.param(line, marks=[pytest.mark.slow] if name in LONG else [])


# ------------------------------------------------------------------------------------------------------------ examples


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with everything that examples name."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "assets").mkdir()
    (folder / "assets" / "demo.mp4").symlink_to(ROOT / "assets" / "demo.mp4")
    vspw = make_vspw(folder / "VSPW_480p", {"0_hills": 4, "1_road": 4}, size=(64, 96))
    shutil.copy(vspw / "val.txt", vspw / "train.txt")
    (folder / "README.md").write_text("no tables")
    folder_of_images(folder / "photos", numbered_images(3, (96, 128)), ["a.png", "b.png", "c.png"])
    write_video(folder / "clip.mp4", numbered_images(3, (96, 128)))
    (folder / "clip_masks").mkdir()
    for index in range(3):
        write_mask(folder / "clip_masks" / f"{index}.png", np.full((96, 128), index, np.uint8))
    (folder / "teachers").mkdir()
    write_teacher(folder / "teachers" / "colours.tflite")
    write_deeplab(folder / "voc.tflite")
    still = (paint([["blue"], ["green"]]), paint_mask([[2], [1]]))
    write_stills(folder / "facades" / "test", {name: index for index, name in enumerate(FACADES8, start=1)}, [still])
    shutil.copy(ROOT / "assets" / "tfc-lite0.safetensors", folder / "my.safetensors")
    build_reference("b0", embed_dim=16).save_pretrained(folder / "segformer-b0")
    return folder


@pytest.mark.parametrize("line", list(examples()))
def test_examples_work_as_pasted(line, work, monkeypatch):
    monkeypatch.chdir(work)
    words = shlex.split(line)
    assert words[0] == "tfcseg"
    if "half_a_second" in words and words[1] != "run":  # the example of run may run in another process
        call("run", "assets/demo.mp4", "--end", "0.5", "-o", "half_a_second", "--overwrite")
    done = call(*words[1:])
    assert done.returncode == 0, done.stderr
    if "-o" in words:
        written = Path(words[words.index("-o") + 1])
        assert written.is_file() or any(written.iterdir())


def test_every_example_names_options_that_there_are(work, monkeypatch):
    monkeypatch.chdir(work)
    for parameter in examples():
        _, name, *words = shlex.split(parameter.values[0])
        if name == "research":
            name = f"research {words.pop(0)}"
        COMMANDS[name].make_context(name, words).close()


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_shows_the_example_unbroken(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    shown = call(*name.split(), "--help")
    assert shown.returncode == 0
    for line in re.findall(r"Example: (.+)", COMMANDS[name].help):
        assert any(line in printed for printed in shown.stdout.splitlines()), line


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_shows_every_name_whole_on_80_columns(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = call(*name.split(), "--help").stdout
    assert max(map(len, shown.splitlines())) <= 80
    names = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", shown)
    for option in COMMANDS[name].params:
        if option.param_type_name == "option":
            assert {*option.opts, *option.secondary_opts} <= set(names)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_speaks_of_videos_on_the_network_where_they_are_read(name):
    (option,) = [each for each in COMMANDS[name].params if each.name == "allow_network"] or [None]
    if option is not None:
        assert ("read videos at addresses" in option.help) == (name in ("run", "steady", "compare"))


@pytest.mark.parametrize("group", ["", "research"])
def test_summaries_of_commands_are_whole_on_80_columns(group, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = call(*group.split(), "--help").stdout
    assert "..." not in shown.split("Commands:")[1]


def test_no_arguments_show_the_help():
    done = call()
    assert (done.returncode, done.stderr) == (2, "")
    assert "research" in done.stdout


# ------------------------------------------------------------------------------------------------------------ mistyped


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "street.mp4", 2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rum", "no command 'rum'; did you mean run?"),
        ("run CLIP --classes foo", "no class 'foo' in label set 'scenes'; there are other, wall, "),
        ("xyzzy", "no command 'xyzzy'; there are run, models, doctor"),
        ("research stils", "no command 'stils'; did you mean stills?"),
        ("convert CLIP x.onnx --frame-size 0x0", "invalid value for '--frame-size': '0x0' is not a frame size; use"),
        ("run CLIP --mdoe tfc", "no such option --mdoe; did you mean --mode"),
        ("run CLIP --mode tcf", "no mode 'tcf'; did you mean tfc?"),
        ("run CLIP --mode TCF", "no mode 'TCF'; did you mean tfc?"),
        ("run CLIP --correlation align", "no correlation 'align'; did you mean aligned?"),
        ("run CLIP --sides none", "no sides 'none'; did you mean one?"),
        ("run CLIP --precision fp61", "no precision 'fp61'; did you mean fp16"),
        ("run CLIP --size large", "invalid value for '--size'"),
        ("run", "missing argument 'INPUTS"),
        ("eval CLIP --split", "option '--split' requires an argument; see tfcseg eval --help"),
        ("run CLIP --siz 3", "no such option --siz; did you mean --size?"),
        ("eval CLIP --protocol strit", "no protocol 'strit'; did you mean strict?"),
        ("train CLIP", "missing option '--output' / '-o'; see tfcseg train --help"),
        ("compare CLIP --modes image --modes tcf", "no mode 'tcf'; "),
        ("run CLIP -o out.mp4", "output 'out.mp4' is named like a file"),
        ("compare CLIP -o out.png", "output 'out.png' is named like a file"),
        ("run CLIP CLIP -o results.json", "output 'results.json' is named like a file"),
        ("run CLIP --end 1:75", "'1:75' is not a time"),
        ("run CLIP --classes ,", "invalid value for '--classes': the list is empty; leave"),
        ("run CLIP -m WEIGHTS --classes persn -o OUT", "no class 'persn' in label set 'street'; did you mean person?"),
    ],
)
def test_what_is_mistyped_is_answered_in_one_line(line, said, clip, weights, tmp_path):
    places = {"CLIP": clip, "WEIGHTS": weights, "OUT": tmp_path / "out"}
    done = call(*[places.get(word, word) for word in line.split()])
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.error
    assert not (tmp_path / "out").exists()


def test_a_mistyped_model_is_answered_in_one_line(clip, tmp_path):
    done = call("run", clip, "-o", tmp_path / "out", "-m", "tfc-light0")
    assert done.returncode == 1
    assert done.error == "no model or weights file 'tfc-light0'; did you mean tfc-lite0?"
    assert call("models", "tfc").error == "no model or weights file 'tfc'; did you mean tfc-lite0 or tfc-mosaic?"


# ---------------------------------------------------------------------------------------------------------- completion


def complete(line, shell="bash"):
    """What the shell is offered at the end of ``line``; fails if that takes torch."""
    code = (
        "import sys; from tfcseg.cli import main; sys.argv = ['tfcseg']\n"
        "try: main()\nfinally: assert not {'torch', 'cv2', 'av', 'numpy'} & sys.modules.keys()"
    )
    words = line.split(" ")
    instruction = {"_TFCSEG_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    cursor = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    environment = {**os.environ, **instruction, **cursor}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tfcseg co", {"compare", "convert"}),
        ("tfcseg run -m tfc-l", {"tfc-lite0"}),
        ("tfcseg run -m tfc", {"tfc-lite0", "tfc-mosaic"}),
        ("tfcseg run --classes person,ca", {"person,cabinet", "person,car", "person,cat"}),
        ("tfcseg run --mode tcf --prec", {"--precision"}),
        ("tfcseg research ablate --rows image,ha", {"image,hard"}),
    ],
)
def test_words_are_completed_without_torch(line, offered):
    assert set(complete(line)) == offered


def test_offered_values_are_those_that_are_taken():
    assert [one_of("mode", MODES)(mode) for mode in MODES] == list(MODES)
    import torch

    for precision in PRECISIONS:
        resolve_precision(precision, torch.device("cuda"))
    assert set(default_classes()) == set(SCENES.names)
    assert options.completing(lambda: ("a b", "ab"))("x,a") == ["x,a b", "x,ab"]
    assert options.completing(lambda: MODES)("") == list(MODES)


def test_no_names_are_offered_where_there_is_no_registry(monkeypatch, tmp_path):
    monkeypatch.setattr("tfcseg.weights.registry.__file__", str(tmp_path / "tfcseg" / "weights" / "registry.py"))
    assert options.completing(options.model_names)("") == []
    assert options.completing(default_classes)("") == []


def test_completion_can_be_shown_and_installed(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path)}
    (tmp_path / ".bashrc").write_text("# mine\n")
    # A shell of its own, since the program asks which one it was called from.
    line = f"{sys.executable} -m tfcseg --show-completion bash; {sys.executable} -m tfcseg --install-completion; true"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "complete_bash" in done.stdout
    assert "bash completion installed" in done.stdout
    settings = (tmp_path / ".bashrc").read_text()
    assert settings.startswith("# mine\n")
    assert ".bash_completions" in settings


def test_help_is_instant():
    started_s = time.process_time()
    for name in COMMANDS:
        call(name, "--help")
    assert time.process_time() - started_s < 5
