"""Anyone's SegFormer as a model: the labels are those that transformers gives, whatever form the weights come in."""

import json
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from transformers import SegformerImageProcessor

import tfcseg
from tests.helpers.command_line import call
from tests.helpers.media import write_clip
from tests.helpers.segformer_reference import build_reference, in_layout
from tests.helpers.tiny_model import moving_images
from tfcseg.errors import WeightsError
from tfcseg.inference.network_input import network_size
from tfcseg.labels.label_sets import ADE150, CITYSCAPES19, CLASS_COLOURS
from tfcseg.research.calibration import write_with_card
from tfcseg.weights import loading
from tfcseg.weights.loading import load_model, read_card

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def write_folder(folder, variant, names, size, *, reduces=False):
    """A folder as transformers writes it, and the network and processor that it was written from."""
    network = build_reference(variant, embed_dim=32, num_classes=len(names))
    network.config.id2label = dict(enumerate(names))
    network.config.label2id = {name: index for index, name in enumerate(names)}
    network.save_pretrained(folder)
    processor = SegformerImageProcessor(size=size, image_mean=MEAN, image_std=STD, do_reduce_labels=reduces)
    processor.save_pretrained(folder)
    return network, processor


@pytest.fixture(scope="module")
def b0(tmp_path_factory):
    """A B0 of ADE20K, named as on the hub: with a blank where there should be none."""
    folder = tmp_path_factory.mktemp("hub") / "segformer-b0-ade"
    names = [f"{name} " if name == "bed" else name for name in ADE150]
    network, processor = write_folder(folder, "b0", names, {"height": 64, "width": 64}, reduces=True)
    return folder, network, processor


@torch.inference_mode()
def labels_of_transformers(network, processor, image, size):
    """Labels of an image that is resized as ours is, and normalised, computed and scaled up by transformers."""
    height, width = network_size(image.shape[:2], size)
    how = cv2.INTER_AREA if min(image.shape[:2]) > size else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=how)
    pixels = processor(resized, do_resize=False, return_tensors="pt")
    found = processor.post_process_semantic_segmentation(network(**pixels), [image.shape[:2]])
    return found[0].numpy()


@pytest.mark.parametrize("size", [(64, 96), (45, 71), (131, 97)])
def test_labels_are_those_of_transformers(b0, size):
    folder, network, processor = b0
    model = load_model(folder, device="cpu", precision="fp32")
    images = moving_images(3, size)
    for frame, image in zip(tfcseg.segment(images, model, mode="image"), images, strict=True):
        wanted = labels_of_transformers(network, processor, image, 64)
        assert len(np.unique(wanted)) > 3
        assert (frame.labels == wanted).mean() >= 0.9999


def test_loading_does_not_start_torchs_compiler(b0):
    """Its import would cost every command a second or more."""
    script = (
        "import sys; from tfcseg.weights.loading import load_model; load_model(sys.argv[1], device='cpu'); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, b0[0]], check=False).returncode == 0


def test_a_b2_of_cityscapes(tmp_path):
    network, processor = write_folder(tmp_path / "b2", "b2", CITYSCAPES19, {"shortest_edge": 96})
    model = load_model(tmp_path / "b2", device="cpu", precision="fp32")
    assert model.labels.palette == CLASS_COLOURS["cityscapes19"]
    assert model.card.preprocessing.size == 96
    image = moving_images(1, (101, 135))[0]
    (frame,) = tfcseg.segment([image], model, mode="image")
    assert (frame.labels == labels_of_transformers(network, processor, image, 96)).mean() >= 0.9999


def test_the_card_says_what_is_known(b0):
    folder, _, _ = b0
    (folder / "README.md").write_text(
        "---\nlicense: other\nlicense_name: 'for research'\ndatasets:\n- scene_parse_150\ntags:\n- vision\n---\n# B0\n"
    )
    card = read_card(folder)
    assert card.name == "segformer-b0-ade"
    assert card.labels.names == ADE150
    assert card.labels.palette == CLASS_COLOURS["ade150"]
    assert card.preprocessing.mean == pytest.approx([255 * number for number in MEAN])
    assert card.preprocessing.std == pytest.approx([255 * number for number in STD])
    assert (card.licence, card.trained_on) == ("for research", "scene_parse_150")
    assert card.created_with.startswith("transformers ")
    assert card.description.startswith("SegFormer-B0; without TFC's own weights")
    assert "one higher" in card.description
    (folder / "README.md").unlink()
    assert read_card(folder).licence == "not stated"


def test_what_needs_no_weights_of_tfc_is_on_and_the_rest_off(b0):
    folder, _, _ = b0
    model = load_model(folder, device="cpu", precision="fp32")
    assert model.card.config.defaults.sides == "both"
    every = list(tfcseg.segment(moving_images(6), model, mode="image"))
    for options in ({}, {"latency": "low"}, {"mode": "reuse"}):
        frames = list(tfcseg.segment(moving_images(6), model, **options))
        assert any((frame.labels != other.labels).any() for frame, other in zip(frames, every, strict=True)), options
    frames = list(tfcseg.segment(moving_images(6), model, threshold=1.0, sides="one"))
    assert [frame.is_keyframe for frame in frames] == [True, False, False] * 2
    assert [frame.updated_fraction for frame in frames if not frame.is_keyframe] == [0.0] * 4


def test_a_run_reports_that_points_are_not_recomputed(b0, tmp_path):
    folder, _, _ = b0
    clip = write_clip(tmp_path / "clip.mp4", 4)
    done = call("run", clip, "-m", folder, "-o", tmp_path / "out", "--no-flow-consistency", "--json", "-q")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"]["name"] == "segformer-b0-ade"
    assert [said for said in report["warnings"] if "without TFC's own weights" in said]
    done = call(
        "run", clip, "-m", folder, "-o", tmp_path / "image", "--no-flow-consistency", "--json", "-q", "--mode", "image"
    )
    assert not [said for said in json.loads(done.stdout)["warnings"] if "TFC" in said]


def checkpoint(network, **extra):
    """What mmsegmentation saves, in the names of the original."""
    state = OrderedDict((name, tensor) for name, tensor in in_layout(network.state_dict(), "nvlabs").items())
    return {"state_dict": state, **extra}


@pytest.mark.parametrize("form", ["original", "mmsegmentation", "safetensors", "lightning"])
def test_every_form_is_the_same_network(b0, form, tmp_path):
    folder, network, _ = b0
    path = tmp_path / f"{form}.pth"
    meta = {"CLASSES": list(ADE150), "PALETTE": [list(colour) for colour in CLASS_COLOURS["ade150"]]}
    if form == "original":
        torch.save(checkpoint(network, meta={**meta, "config": "crop_size = (64, 64)"}), path)
    elif form == "mmsegmentation":
        log = np.float64(0.5)  # NumPy's objects are not opened; mmengine's logs are full of them
        of_classes = {"classes": list(ADE150), "palette": meta["PALETTE"]}
        torch.save(checkpoint(network, meta={"dataset_meta": of_classes, "cfg": "crop_size=(64,64)"}, log=log), path)
    elif form == "lightning":
        state = {f"model.{name}": tensor for name, tensor in in_layout(network.state_dict(), "transformers_5").items()}
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        path = tmp_path / "named.safetensors"
        path.write_bytes((folder / "model.safetensors").read_bytes())
    model = load_model(path, device="cpu", precision="fp32")
    assert model.labels.names == ADE150
    assert model.labels.palette == CLASS_COLOURS["ade150"]
    assert model.card.preprocessing.size == (64 if form in ("original", "mmsegmentation") else 512)
    ours = load_model(folder, device="cpu", precision="fp32").network.state_dict()
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, ours[name]), name


def test_a_converted_file_is_the_same_model(b0, tmp_path):
    folder, _, _ = b0
    done = call("convert", folder, tmp_path / "ade.safetensors")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "ade.safetensors")
    assert "150 classes" in done.stderr
    ours, theirs = (load_model(path, device="cpu", precision="fp32") for path in (tmp_path / "ade.safetensors", folder))
    assert ours.card == theirs.card
    images = moving_images(4)
    for one, other in zip(tfcseg.segment(images, ours), tfcseg.segment(images, theirs), strict=True):
        assert (one.labels == other.labels).all()
    again = call("convert", folder, tmp_path / "ade.safetensors")
    assert (again.returncode, "already" in again.error) == (1, True)
    assert call("convert", folder, tmp_path / "ade.safetensors", "--overwrite", "--name", "mine").returncode == 0
    assert read_card(tmp_path / "ade.safetensors").name == "mine"
    assert "is already a tfcseg model" in call("convert", "default", tmp_path / "x.safetensors").error
    assert "safetensors" in call("convert", folder, tmp_path / "x.bin").error
    named = call("convert", folder, tmp_path / "x.safetensors", "--name", "two\nlines")
    assert (named.returncode, named.error) == (2, "--name must be one line of 1 to 100 characters")
    words = ("--licence", "for research,\nby many", "-q", "--overwrite")
    assert call("convert", folder, tmp_path / "ade.safetensors", *words).returncode == 0
    assert read_card(tmp_path / "ade.safetensors").licence == "for research, by many"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ade.safetensors"]


def test_models_shows_any_segformer(b0):
    folder, _, _ = b0
    shown = call("models", folder)
    assert shown.returncode == 0, shown.stderr
    assert "chest of drawers" in shown.stdout


def broken(folder, **changes):
    """config.json with other entries."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def preprocessor_of(**entries):
    """Function that replaces preprocessor_config.json."""
    return lambda folder: (folder / "preprocessor_config.json").write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: broken(f, model_type="mask2former"), "is a 'mask2former' model by its config.json"),
        (lambda f: broken(f, model_type="strange"), "is a 'strange' model by its config.json"),
        (lambda f: broken(f, num_attention_heads=[1, 2, 5, 4]), "num_attention_heads is [1, 2, 5, 4]"),
        (lambda f: broken(f, id2label={"0": "a"}), "150 classes, label set"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), "is a folder without model.safetensors"),
        (lambda f: (f / "preprocessor_config.json").write_text('{"size": "big"}'), "has a size of big"),
        (lambda f: (f / "preprocessor_config.json").write_text('{"size": 7}'), "'size' must be a number from 32"),
        (preprocessor_of(image_mean=[10**400, 1, 1]), "preprocessor_config.json is not usable"),
        (preprocessor_of(image_mean=[1] * 50_000), "preprocessor_config.json is not usable"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1"),
            "git lfs pull",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"<!DOCTYPE html>"), "a web page"),
        (lambda f: (f / "model.safetensors").write_bytes(bytes(100)), "model.safetensors"),
    ],
)
def test_bad_and_foreign_folders_get_one_line(b0, spoil, said, tmp_path):
    source, _, _ = b0
    folder = tmp_path / "model"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    spoil(folder)
    with pytest.raises(WeightsError) as failure:
        load_model(folder)
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 1000


def test_other_architectures_are_refused(tmp_path):
    torch.save({"model.0.conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"has none of a SegFormer's tensors; .*eval --predictions"):
        load_model(tmp_path / "other.pth")


def test_a_folder_of_checkpoints_names_them(tmp_path):
    for name in ("iter_10.pth", "iter_20.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(WeightsError, match=r"give one of .*iter_10\.pth, .*iter_20\.pth"):
        load_model(tmp_path)


def test_results_that_are_there_are_refused_before_it_loads(b0, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", 2)
    (tmp_path / "report.json").write_text('{"tfcseg": "0.1.0"}')
    monkeypatch.setattr(loading, "load_model", None)
    assert "already exists" in call("run", clip, "-o", tmp_path, "-m", b0[0]).error


def test_what_is_fitted_to_it_makes_a_file_of_ours(b0, tmp_path):
    folder, _, _ = b0
    write_with_card(folder, tmp_path / "fitted.safetensors", lambda card: replace(card, measured={"temperature": 1.5}))
    fitted, plain = (load_model(path, device="cpu") for path in (tmp_path / "fitted.safetensors", folder))
    assert fitted.card.measured == {"temperature": 1.5}
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(tensor, fitted.network.state_dict()[name]), name
