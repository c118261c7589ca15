"""Weights of several runs in one."""

from dataclasses import replace

import pytest
import torch

from tests.helpers.command_line import call
from tests.helpers.tiny_model import NAMES, build_tiny_network, tiny_card
from tfcseg.errors import UsageError, WeightsError
from tfcseg.labels.label_sets import LabelSet, distinct_palette
from tfcseg.research.publishing import average_files
from tfcseg.training.networks import with_classes
from tfcseg.weights.loading import load_model, read_card, save_model


def state(path):
    return load_model(path, device="cpu", precision="fp32", fold=False).network.state_dict()


def test_shares_count(tmp_path):
    one, two, out = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "out"))
    for seed, (path, data) in enumerate(((one, "photos"), (two, "clips"))):
        licence = f"terms of {data}"
        card = replace(tiny_card(), name=path.stem, trained_on=data, licence=licence, measured={"tfc_miou": 40.0})
        save_model(path, build_tiny_network(seed=seed), card)
    average_files(out, [f"{one}=3", f"{two}=1"])
    first, second, mean = state(one), state(two), state(out)
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.75 * first[name] + 0.25 * second[name], rtol=2e-3, atol=1e-3), name
    card = read_card(out)
    assert card.description == "mean of the weights of one (0.75), two (0.25)"
    assert (card.trained_on, card.licence) == ("photos; and clips", "terms of photos; and terms of clips")
    assert card.measured == {}, "what was measured of one does not hold"


def test_a_model_has_no_say_in_classes_that_it_lacks(tmp_path):
    wide, narrow, out = (tmp_path / f"{name}.safetensors" for name in ("wide", "narrow", "out"))
    labels = LabelSet("wider", (*NAMES, "boat"), distinct_palette(len(NAMES) + 1))
    save_model(wide, *with_classes(build_tiny_network(seed=1), tiny_card(), labels))
    save_model(narrow, build_tiny_network(seed=2), replace(tiny_card(), name="narrow"))
    average_files(out, [f"{wide}=1", f"{narrow}=1"])
    row = "decode_head.classifier.weight"
    assert torch.equal(state(out)[row][-1], state(wide)[row][-1])
    assert torch.allclose(state(out)[row][0], (state(wide)[row][0] + state(narrow)[row][0]) / 2, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("part", ["a.safetensors", "a.safetensors=x", "a.safetensors=0", "=1"])
def test_a_file_without_a_share_is_named(tmp_path, part):
    with pytest.raises(UsageError, match=f"'{part}' is not WEIGHTS=SHARE, with a share above 0"):
        average_files(tmp_path / "out", [part])
    done = call("research", "average", tmp_path / "out.safetensors", part)
    assert done.error == f"'{part}' is not WEIGHTS=SHARE, with a share above 0"


def test_networks_of_different_shapes_are_refused(tmp_path):
    one, two = (tmp_path / f"{name}.safetensors" for name in ("one", "two"))
    save_model(one, build_tiny_network(), tiny_card())
    save_model(two, build_tiny_network("mit_b0"), replace(tiny_card("mit_b0"), name="other"))
    with pytest.raises(WeightsError, match="other has another network than tiny"):
        average_files(tmp_path / "out.safetensors", [f"{one}=1", f"{two}=1"])


def test_the_command_replaces_no_file_unasked(tmp_path):
    one, out = tmp_path / "one.safetensors", tmp_path / "out.safetensors"
    save_model(one, build_tiny_network(), tiny_card())
    line = ("research", "average", out, f"{one}=2")
    assert call(*line).stdout == "mean of the weights of tiny (1)\n"
    assert call(*line).returncode == 1
    assert call(*line, "--overwrite").returncode == 0
    assert call("research", "average", one, f"{one}=1", "--overwrite").returncode == 2, "it is an input"
    other = call("research", "average", tmp_path / "out.json", f"{one}=1")
    assert (other.returncode, "not a weights file; give a name that ends in" in other.error) == (2, True)
