"""``tfcseg research calibrate`` as a user calls it."""

import json

import numpy as np
import pytest

from tests.helpers.command_line import call
from tests.helpers.still_fixture import write_stills
from tests.helpers.tiny_model import moving_images, write_tiny_model
from tfcseg.research.publishing import publish
from tfcseg.weights.loading import load_model, read_card
from tfcseg.weights.tensor_file import read_tensor_file

CLASSES = {"sky": 1, "road": 2, "person": 4}


@pytest.fixture
def weights(tmp_path):
    return write_tiny_model(tmp_path / "best.safetensors")


@pytest.fixture
def stills(tmp_path):
    rng = np.random.default_rng(0)
    images = moving_images(4, (64, 96))
    masks = [rng.choice([0, 1, 2, 4], (8, 12)).astype(np.uint8).repeat(8, 0).repeat(8, 1) for _ in images]
    return write_stills(tmp_path / "cityscapes" / "test", CLASSES, list(zip(images, masks, strict=True)))


def test_the_temperature_goes_into_the_card_and_no_tensor_changes(weights, stills, tmp_path):
    done = call("research", "calibrate", stills, "-m", weights, "-o", tmp_path / "out.safetensors", "--json", "-q")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stills"] == 4
    assert found["labels"] > 500
    assert found["error"] <= found["error_unfitted"]
    card = read_card(tmp_path / "out.safetensors")
    assert card.measured["temperature"] == pytest.approx(found["temperature"], abs=1e-4)
    assert card.measured["calibration_error"] == pytest.approx(found["error"], abs=0.01)
    assert card.measured["calibration_data"] == "cityscapes/test: 4 stills"
    loaded = load_model(tmp_path / "out.safetensors")
    assert loaded.temperature == card.measured["temperature"]
    assert loaded.calibration_error == pytest.approx(found["error"] / 100, abs=1e-4)
    before, after = (read_tensor_file(path).tensors for path in (weights, tmp_path / "out.safetensors"))
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)


def test_a_foreign_registry_beside_it_is_told_before_the_file_is_written(weights, stills, tmp_path):
    (tmp_path / "models.json").write_text('{"models": {"a": 1}}')
    done = call("research", "calibrate", stills, "-m", weights, "-o", tmp_path / "out.safetensors", "-q")
    assert (done.returncode, "is not a registry of models; repair it or choose" in done.error) == (1, True)
    assert not (tmp_path / "out.safetensors").exists()


def test_only_a_weights_file_is_written(weights, stills, tmp_path):
    done = call("research", "calibrate", stills, "-m", weights, "-o", tmp_path / "out.json")
    assert (done.returncode, "not a weights file; give a name that ends in .safetensors" in done.error) == (2, True)


def test_a_registry_knows_the_new_file_and_publishing_keeps_the_temperature(weights, stills, tmp_path):
    given = {"description": "", "measured": {"image_miou": 50.0}, "default": True}
    path = publish(weights, tmp_path / "zoo", name="one", **given)
    assert call("research", "calibrate", stills, "-m", path, "-o", path, "-q").returncode == 1  # it is there
    done = call("research", "calibrate", stills, "-m", path, "-o", path, "-q", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("temperature ")
    temperature = load_model("one", assets=tmp_path / "zoo").temperature  # its hash is the registry's
    assert temperature != 1
    again = publish(path, tmp_path / "zoo", name="two", **given)
    assert load_model(again).temperature == temperature


def test_classes_that_the_model_does_not_know_are_refused_in_one_line(weights, tmp_path):
    image = np.zeros((64, 96, 3), np.uint8)
    folder = write_stills(tmp_path / "fruit" / "test", {"apple": 1}, [(image, np.ones((64, 96), np.uint8))])
    done = call("research", "calibrate", folder, "-m", weights)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "fruit/test" in done.stderr
