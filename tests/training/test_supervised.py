"""Supervised training on a VSPW folder: the paper's numbers, what it starts from, and that it learns."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import vspw_fixture as vspw
from tests.helpers.command_line import call
from tests.helpers.segformer_reference import build_reference, in_layout
from tests.helpers.supervised_clips import make_clips
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.errors import UsageError
from tfcseg.evaluation.vspw import open_vspw
from tfcseg.labels.label_sets import LabelSet, distinct_palette
from tfcseg.model.config import ModelConfig
from tfcseg.training.networks import start_supervised
from tfcseg.training.options import TrainRequest
from tfcseg.training.recipes import recipe_options
from tfcseg.training.run import plan_training
from tfcseg.weights.convert import convert_pretrained
from tfcseg.weights.loading import count_parameters, load_model, read_card, save_model
from tfcseg.weights.tensor_file import write_tensor_file

HERE = ("--device", "cpu", "--precision", "fp32")
SMALL = ("--crop", 64, "--workers", 0, "--threads", 1, *HERE)
LABELS = LabelSet("street", ("sky", "grass", "tree", "car", "person", "dog"), distinct_palette(6))


# -------------------------------------------------------------------------------------------------- the paper's numbers


def test_the_recipe_is_the_papers():
    options = recipe_options("tfc", supervised=True, given={})
    assert (options.learning_rate, options.head_rate_scale, options.weight_decay) == (6e-5, 10, 0.01)
    assert (options.steps, options.batch, options.warmup_steps) == (160_000, 8, 1500)
    assert (options.correlation, options.bce_weight, options.train_norms, options.frozen) == ("paper", 1, True, ())
    assert (options.averaging, options.max_gradient_norm) == (0, None)


def test_the_batch_is_shared_by_the_processes_and_a_short_run_warms_up_shortly(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    options = recipe_options("image", supervised=True, given={"steps": 500})
    assert (options.batch, options.warmup_steps) == (2, 50)
    monkeypatch.setenv("WORLD_SIZE", "16")
    assert recipe_options("tfc", supervised=True, given={}).batch == 1
    assert recipe_options("tfc", supervised=True, given={"batch": 3}).batch == 3


@pytest.mark.parametrize(("backbone", "millions"), [("mit_b0", 4.5), ("mit_b1", 14.5), ("mit_b5", 82.8)])
def test_networks_have_as_many_parameters_as_the_papers(backbone, millions):
    assert count_parameters(ModelConfig(backbone, 256, 124)) / 1e6 == pytest.approx(millions, abs=0.05)


# ------------------------------------------------------------------------------------------------------ starting points


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    """A Hugging Face folder of a SegFormer with other classes; two of them are VSPW's and ours."""
    network = build_reference("b0", embed_dim=64, num_classes=3)
    network.config.id2label = {0: "tree", 1: "rug", 2: "sky"}
    folder = tmp_path_factory.mktemp("published") / "segformer-b0"
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": 512, "image_mean": [0.5, 0.5, 0.5]}')
    (folder / "README.md").write_text("---\nlicense: research-only\ndatasets:\n- scene_parse_150\n---\n")
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """As ``nvidia/mit-b0`` is published: an encoder and the classifier of ImageNet."""
    tensors = in_layout(build_reference("b0").state_dict(), "transformers_4")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("decode_head.")}
    file = tmp_path_factory.mktemp("published") / "mit-b0.safetensors"
    file.with_name("README.md").write_text("---\nlicense: research-only\n---\n")
    write_tensor_file(file, kept | {"classifier.weight": torch.ones(1000, 256)}, {"format": "pt"})
    return file


def test_a_published_segformer_gets_another_classifier(segformer):
    network, card = start_supervised("mit_b3", LABELS, segformer, 480)
    found, expected = network.state_dict(), convert_pretrained(segformer).network.state_dict()
    shared = [name for name in found if not name.startswith(("decode_head.classifier.", "update."))]
    assert len(shared) > 150
    assert all(torch.equal(found[name], expected[name]) for name in shared)
    for part in ("weight", "bias"):
        ours, theirs = (state[f"decode_head.classifier.{part}"] for state in (found, expected))
        assert len(ours) == 6
        assert torch.equal(ours[0], theirs[2]), "sky"
        assert torch.equal(ours[2], theirs[0]), "tree"
        assert not torch.equal(ours[1], theirs[1])
    assert (card.labels, card.config) == (LABELS, ModelConfig("mit_b0", 64, 6, repairs=False))
    assert (card.trained_on, card.licence) == ("segformer-b0 (scene_parse_150)", "research-only")
    assert (card.preprocessing.mean, card.preprocessing.size) == ((127.5, 127.5, 127.5), 480)
    assert network.config == card.config


def test_an_encoder_gets_a_head(encoder):
    network, card = start_supervised("mit_b3", LABELS, str(encoder), 480)
    expected = convert_pretrained(encoder).state_dict
    assert len(expected) > 100
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in expected.items())
    assert card.config == ModelConfig("mit_b0", 256, 6, repairs=False)
    assert (card.trained_on, card.licence) == ("backbone: mit-b0", "research-only")
    assert card.preprocessing.mean == (123.675, 116.28, 103.53)


def test_teachers_give_a_backbone_alone_its_head_first(encoder, segformer, tmp_path):
    """Stage ``tfc`` would have trained a random one, at its small rates."""
    (tmp_path / "teacher.tflite").touch()
    (tmp_path / "mosaic.tflite").touch()
    asked = {"data": [tmp_path], "teachers": [tmp_path / "teacher.tflite"], "output": tmp_path.with_suffix(".run")}
    for start, stage in ((encoder, "image"), (tmp_path / "mosaic.tflite", "image"), (segformer, "tfc")):
        assert plan_training(TrainRequest(**asked, init=str(start))).options.stage == stage
    with pytest.raises(UsageError, match="stage tfc starts from an image network; give one of --stage image with"):
        plan_training(TrainRequest(**asked, init=str(encoder), stage="tfc"))


def test_a_model_of_ours_is_trained_on_as_the_paper_does(tmp_path):
    """Whatever it was made for: aligned correlation and another threshold are no part of the recipe."""
    first = load_model(write_tiny_model(tmp_path / "tiny.safetensors"), device="cpu", precision="fp32", fold=False)
    config = {"keyframe_interval": 7, "threshold": 0.5, "correlation": "aligned", "sides": "both"}
    card = first.card.to_metadata()
    card["config"] = json.dumps(json.loads(card["config"]) | config)
    tensors = load_file(tmp_path / "tiny.safetensors")
    write_tensor_file(tmp_path / "other.safetensors", tensors, card)
    network, card = start_supervised("mit_b0", LABELS, tmp_path / "other.safetensors", 240)
    assert (card.config.defaults.keyframe_interval, card.config.defaults.threshold) == (4, 0.8)
    assert card.config.defaults.correlation == network.config.defaults.correlation == "paper"
    assert card.config.defaults.sides == network.config.defaults.sides == "one"
    assert card.preprocessing.size == 240
    assert (card.labels, card.config.num_classes) == (LABELS, 6)
    save_model(tmp_path / "start.safetensors", network, card)  # network and card fit each other
    classifier = network.state_dict()["decode_head.classifier.weight"]
    assert torch.equal(classifier[3], first.network.state_dict()["decode_head.classifier.weight"][4]), "car"


def test_the_program_starts_from_an_encoder(encoder, tmp_path):
    """One step at next to no rate: what is written is what was read, in half precision."""
    root = vspw.make_vspw(tmp_path / "vspw", {"0_hills": 5}, split="train")
    shutil.copy(root / "train.txt", root / "val.txt")
    rate = ("--steps", 1, "--batch", 1, "--lr", 1e-9)
    done = call("train", root, "-o", tmp_path / "run", "--init", encoder, *rate, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "random weights" not in done.stderr
    card = read_card(tmp_path / "run" / "last.safetensors")
    assert card.trained_on == "backbone: mit-b0; then supervised on vspw (1 video)"
    assert card.licence == "research-only", "of the weights that it started from"
    written = load_file(tmp_path / "run" / "last.safetensors")
    for name, tensor in convert_pretrained(encoder).state_dict.items():
        torch.testing.assert_close(written[name].float(), tensor, atol=1e-3, rtol=1e-3)


def test_stage_attention_leaves_a_published_network_as_it_is(tmp_path):
    """Its weights are not exact in half precision."""
    root = make_clips(tmp_path / "clips", 1)
    network = build_reference("b0", embed_dim=64, num_classes=124)
    network.config.id2label = dict(enumerate(open_vspw(root).labels.names))
    network.save_pretrained(tmp_path / "own")
    few = ("--steps", 1, "--batch", 1, "--stage", "attention", "--init", tmp_path / "own")
    done = call("train", root, "-o", tmp_path / "run", *few, *SMALL)
    assert done.returncode == 0, done.stderr
    before = convert_pretrained(tmp_path / "own").network.state_dict()
    after = load_file(tmp_path / "run" / "last.safetensors")
    fixed = [name for name in before if not name.startswith("update.")]
    assert len(fixed) > 150
    assert all(torch.equal(before[name], after[name]) for name in fixed)


# ------------------------------------------------------------------------------------------------------------- learning


def train(root, output, *numbers):
    return call("train", root, "-o", output, *numbers, *SMALL, "--checkpoint-every", 10_000)


def test_a_clip_is_learnt(tmp_path):
    """Of four classes in equal parts chance would get 14."""
    root = make_clips(tmp_path / "clips", 1)
    done = train(root, tmp_path / "run", "--steps", 40, "--batch", 1, "--lr", 5e-4, "--size", 128, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best_miou"] > 60


@pytest.mark.slow
def test_four_clips_are_learnt_and_labels_between_keyframes_are_steadier(tmp_path):
    """From random weights, through the program alone, as a user would: train, then score both ways."""
    root = make_clips(tmp_path / "clips", 4)
    done = train(root, tmp_path / "run", "--steps", 160, "--batch", 4, "--lr", 3e-4, "--size", 128)
    assert done.returncode == 0, done.stderr
    weights = tmp_path / "run" / "last.safetensors"
    scores = {}
    for mode in ("image", "tfc"):
        done = call("eval", root, "-m", weights, "--mode", mode, "--no-flow-consistency", "--json", "-q", *HERE)
        assert done.returncode == 0, done.stderr
        scores[mode] = json.loads(done.stdout)
    assert scores["image"]["miou"] > 90
    assert scores["tfc"]["miou"] > 90
    assert scores["tfc"]["vc8"] > scores["image"]["vc8"] + 0.5
