"""Publishing a trained model, and listing what a registry holds."""

import dataclasses
import json
import re

import pytest
import torch
from typer.testing import CliRunner

from tests.helpers.tiny_model import build_tiny_network, randomise, tiny_card, write_tiny_model
from tests.helpers.vspw_fixture import make_vspw
from tfcseg.cli import app
from tfcseg.errors import WeightsError
from tfcseg.labels.label_sets import VSPW, LabelSet, distinct_palette
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import build_segmenter
from tfcseg.research.publishing import measure, publish
from tfcseg.weights.loading import load_model, read_card, save_model
from tfcseg.weights.registry import list_models

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
    path = add(
        tmp_path / "zoo",
        weights,
        "one",
        defaults=InferenceOptions(correlation="aligned", threshold=0.5, half_size_share=0.7),
    )
    card = read_card(path)
    assert (card.name, card.description, dict(card.measured)) == ("one", "for tests", MEASURED)
    used = card.config.defaults
    assert (used.correlation, used.threshold, used.half_size_share) == ("aligned", 0.5, 0.7)
    assert tiny_card().config.defaults.correlation == "paper"
    published = load_model("default", assets=tmp_path / "zoo", fold=False).network.state_dict()
    for name, tensor in build_tiny_network().state_dict().items():
        assert (published[name] == tensor.half().to(tensor.dtype)).all() or "running" in name, name


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in fp16")
def test_measuring_states_scores_and_settings(tmp_path):
    card = tiny_card()
    card = dataclasses.replace(card, config=dataclasses.replace(card.config, num_classes=len(VSPW)))
    card = dataclasses.replace(card, labels=LabelSet("vspw", VSPW, distinct_palette(len(VSPW))))
    network = build_segmenter(card.config)
    torch.manual_seed(0)
    randomise(network)
    weights = tmp_path / "vspw.safetensors"
    save_model(weights, network, card)
    root = make_vspw(tmp_path / "vspw", {"0_hills": 5, "1_road": 3}, size=(48, 64))
    measured = measure(weights, root)
    assert re.search(r"cpu, (float32|bfloat16)$", measured["settings"])
    assert measured.keys() == {"data", "settings", "image_miou", "tfc_miou"}


@pytest.mark.parametrize("name", ["../escape", "two\nlines", "long" * 30, ""])
def test_names_stay_inside_the_folder_and_fit_into_the_card(name, weights, tmp_path):
    with pytest.raises(WeightsError, match="cannot be the name"):
        add(tmp_path / "zoo", weights, name)


def test_texts_of_several_lines_become_one(weights, tmp_path):
    """They were refused as a damaged card, after the model was measured."""
    card = read_card(add(tmp_path / "zoo", weights, "one", description="two\nlines", licence="by\nmany"))
    assert (card.description, card.licence) == ("two lines", "by many")


def test_a_foreign_registry_is_not_overwritten(weights, tmp_path):
    registry = tmp_path / "models.json"
    registry.write_text('["mine"]')
    with pytest.raises(WeightsError, match="not a registry"):
        add(tmp_path, weights, "one")
    assert registry.read_text() == '["mine"]'


@pytest.mark.parametrize("name", ["fine", "../escape"])
def test_what_cannot_be_published_is_told_before_it_is_measured(name, weights, tmp_path, caplog):
    registry = tmp_path / "models.json"
    registry.write_text('["mine"]')
    nowhere = ["--measure", tmp_path / "nowhere", "--name", name, "-o", tmp_path]
    done = CliRunner().invoke(app, ["research", "publish", *map(str, [weights, *nowhere])])
    assert done.exit_code == 1
    assert ("not a registry" if name == "fine" else "cannot be the name") in caplog.text


def test_a_folder_that_was_made_in_vain_goes_again(weights, tmp_path):
    line = ["research", "publish", weights, "--measure", tmp_path / "nowhere", "--name", "fine", "-o", tmp_path / "zoo"]
    assert CliRunner().invoke(app, [*map(str, line)]).exit_code == 1
    assert not (tmp_path / "zoo").exists()


def test_models_lists_what_is_shipped():
    done = CliRunner().invoke(app, ["models", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    default = next(entry for entry in facts if entry["is_default"])
    assert default["parameters"] > 1_000_000
    assert {"image_miou", "tfc_miou", "image_vc8", "tfc_vc8", "image_vc16", "tfc_vc16"} <= set(default["measured"])
    table = CliRunner().invoke(app, ["models"]).stdout
    assert default["name"] in table
