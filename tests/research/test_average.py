"""Weights of several runs in one."""

from dataclasses import replace

import pytest
import torch

from tests.helpers.tiny_model import NAMES, build_tiny_network, tiny_card
from tfcseg.errors import UsageError
from tfcseg.labels.label_sets import LabelSet, distinct_palette
from tfcseg.research.average import average_files
from tfcseg.training.recipes import with_classes
from tfcseg.weights.loading import load_model, save_model


def state(path):
    return load_model(path, device="cpu", precision="fp32", fold=False).network.state_dict()


def test_shares_count(tmp_path):
    one, two, out = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "out"))
    for seed, path in enumerate((one, two)):
        save_model(path, build_tiny_network(seed=seed), tiny_card())
    average_files(out, [f"{one}=3", f"{two}=1"])
    first, second, mean = state(one), state(two), state(out)
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.75 * first[name] + 0.25 * second[name], rtol=2e-3, atol=1e-3), name


def test_a_model_has_no_say_in_classes_that_it_lacks(tmp_path):
    wide, narrow, out = (tmp_path / f"{name}.safetensors" for name in ("wide", "narrow", "out"))
    labels = LabelSet("wider", (*NAMES, "boat"), distinct_palette(len(NAMES) + 1))
    save_model(wide, *with_classes(build_tiny_network(seed=1), tiny_card(), labels))
    save_model(narrow, build_tiny_network(seed=2), replace(tiny_card(), name="narrow"))
    average_files(out, [f"{wide}=1", f"{narrow}=1"])
    row = "decode_head.classifier.weight"
    assert torch.equal(state(out)[row][-1], state(wide)[row][-1])
    assert torch.allclose(state(out)[row][0], (state(wide)[row][0] + state(narrow)[row][0]) / 2, rtol=2e-3, atol=1e-3)


def test_a_file_without_a_share_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"'a\.safetensors' is not WEIGHTS=SHARE"):
        average_files(tmp_path / "out", ["a.safetensors"])
