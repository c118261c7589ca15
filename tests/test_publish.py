"""Publishing a trained model, and listing what a registry holds."""

import json

import pytest
from typer.testing import CliRunner

from tests.tiny_model import build_tiny_network, tiny_card, write_tiny_model
from tfcseg.cli import app
from tfcseg.errors import WeightsError
from tfcseg.publishing import publish
from tfcseg.weights import list_models, load_model, read_card

MEASURED = {"image_miou": 70.0, "tfc_miou": 69.9, "tfc_vc8": 95.0, "data": "street/val"}


def add(folder, weights, name, **options):
    given = {"description": "for tests", "measured": MEASURED, "default": False} | options
    return publish(weights, folder, name=name, **given)


@pytest.fixture
def weights(tmp_path):
    return write_tiny_model(tmp_path / "best.safetensors")


def test_the_first_model_becomes_the_default(weights, tmp_path):
    add(tmp_path / "zoo", weights, "one")
    add(tmp_path / "zoo", weights, "two")
    assert {record.name: record.is_default for record in list_models(tmp_path / "zoo")} == {"one": True, "two": False}
    add(tmp_path / "zoo", weights, "two", default=True)
    assert {record.name: record.is_default for record in list_models(tmp_path / "zoo")} == {"one": False, "two": True}


def test_the_card_says_what_was_measured_and_the_weights_are_the_same(weights, tmp_path):
    path = add(tmp_path / "zoo", weights, "one", defaults={"correlation": "aligned", "threshold": 0.5})
    card = read_card(path)
    assert (card.name, card.description, dict(card.measured)) == ("one", "for tests", MEASURED)
    assert (card.config.correlation, card.config.threshold) == ("aligned", 0.5)
    assert tiny_card().config.correlation == "paper"
    published = load_model("default", assets=tmp_path / "zoo", fold=False).network.state_dict()
    for name, tensor in build_tiny_network().state_dict().items():
        assert (published[name] == tensor.half().to(tensor.dtype)).all() or "running" in name, name


def test_names_stay_inside_the_folder(weights, tmp_path):
    with pytest.raises(WeightsError, match="cannot be the name"):
        add(tmp_path / "zoo", weights, "../escape")


def test_a_foreign_registry_is_not_overwritten(weights, tmp_path):
    registry = tmp_path / "models.json"
    registry.write_text('["mine"]')
    with pytest.raises(WeightsError, match="not a registry"):
        add(tmp_path, weights, "one")
    assert registry.read_text() == '["mine"]'


def test_models_lists_what_is_shipped():
    done = CliRunner().invoke(app, ["models", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    default = next(entry for entry in facts if entry["is_default"])
    assert default["parameters"] > 1_000_000
    assert {"image_miou", "tfc_miou", "image_vc8", "tfc_vc8", "image_vc16", "tfc_vc16"} <= set(default["measured"])
    table = CliRunner().invoke(app, ["models"]).stdout
    assert default["name"] in table
