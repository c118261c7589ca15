"""An option is one field: a field that is added shows up wherever options are, without another line."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.helpers.media import write_clip
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.errors import UsageError
from tfcseg.inference.options import describe_method
from tfcseg.model.options import PAPER_OPTIONS, InferenceOptions
from tfcseg.options import Option, check, declared
from tfcseg.runs.options import ResultOptions
from tfcseg.training.options import TrainRequest
from tfcseg.weights.device import DeviceOptions

PROGRAM = """
import dataclasses, json, sys, types
from importlib.util import find_spec

found = find_spec("tfcseg.model.options")
source = found.loader.get_source(found.name)
field = 'dummy: Annotated[int, Option("Dummies between frames.", low=0, high=9, value_of_paper=3)] = THE_MODELS'
source = source.replace("    latency: Annotated[", f"    {field}\\n    latency: Annotated[")
module = types.ModuleType(found.name)
sys.modules[found.name] = module
exec(compile(source, found.origin, "exec"), vars(module))

from typer.testing import CliRunner
import tfcseg
from pathlib import Path
from tfcseg.cli import app
from tfcseg.weights.loading import load_model, read_card, save_model

for command in ("run", "eval", "compare", "bench"):
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert "--dummy" in shown.output and "Dummies between frames." in shown.output, shown.output

clip, weights, out = sys.argv[1:]
model = load_model(weights, device="cpu", fold=False)
assert model.card.config.defaults.dummy == 3
config = model.network.config = dataclasses.replace(
    model.card.config, defaults=dataclasses.replace(model.card.config.defaults, dummy=5)
)
save_model(Path(out).with_suffix(".safetensors"), model.network, dataclasses.replace(model.card, config=config))
assert read_card(Path(out).with_suffix(".safetensors")).config.defaults.dummy == 5

list(tfcseg.segment(tfcseg.read_frames(clip), model, dummy=4))
tfcseg.run(clip, out, model, dummy=4, results=tfcseg.ResultOptions(overlay=False, flow_consistency=False))
assert json.load(open(f"{out}/report.json"))["options"]["dummy"] == 4
try:
    tfcseg.segment([], model, dummy=10)
except tfcseg.UsageError as error:
    assert str(error) == "dummy 10 is not between 0 and 9"
"""


def test_a_new_field_is_an_option_everywhere(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 3)
    weights = write_tiny_model(tmp_path / "tiny.safetensors")
    command = [sys.executable, "-c", PROGRAM, str(clip), str(weights), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("options", [InferenceOptions, ResultOptions, DeviceOptions])
def test_defaults_are_allowed_and_explained(options):
    check(options())
    assert all(field.option.help.endswith(".") for field in declared(options))


@pytest.mark.parametrize("name", ["keyframe_scale", "half_size_share", "things_share"])
def test_help_states_the_bounds_of_what_nobody_could_guess(name):
    (option,) = (field.option for field in declared(InferenceOptions) if field.name == name)
    assert re.search(rf"\b{option.low}\b.* to {option.high}\b", option.help)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (InferenceOptions(mode="tfd"), "no mode 'tfd'; did you mean tfc?"),
        (InferenceOptions(keyframe_interval=0), "keyframe interval 0 is not between 1 and 1000"),
        (InferenceOptions(half_size_share=1.5), "half size share 1.5 is not between 0 and 1"),
        (ResultOptions(alpha=-1), "alpha -1 is not between 0 and 1"),
        (InferenceOptions(keyframe_interval=2.5), "keyframe interval is 2.5, not a whole number"),
        (InferenceOptions(size=True), "size is True, not a whole number"),
        (InferenceOptions(threshold="0.5"), "threshold is '0.5', not a number"),
        (ResultOptions(unsure="a"), "unsure is 'a', not a number"),
    ],
)
def test_what_is_not_allowed_is_said_in_one_line(options, message):
    with pytest.raises(UsageError) as caught:
        check(options)
    assert str(caught.value) == message


def test_commands_name_the_option_and_python_the_field(tmp_path):
    with pytest.raises(UsageError, match="--lr 2 is not between 1e-12 and 1"):
        check(TrainRequest(data=[], output=tmp_path, learning_rate=2), by_flag=True)
    with pytest.raises(UsageError, match="learning rate 2 is not between"):
        check(TrainRequest(data=[], output=tmp_path, learning_rate=2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sides": "both", "keyframes": "adaptive"}, "adaptive keyframes, at most 16 frames apart, both sides"),
        ({"sides": "both", "keyframe_interval": 3}, "keyframe interval 3, both sides"),
        ({}, "keyframe interval 4, threshold 0.8, paper correlation"),
    ],
)
def test_the_method_in_words(options, words):
    assert describe_method(replace(PAPER_OPTIONS, **options)) == words


def test_declared_fields_say_their_type_without_the_option():
    (mode, *_) = declared(InferenceOptions)
    assert (mode.name, mode.type, mode.default, type(mode.option)) == ("mode", str, "tfc", Option)
