"""A model as ONNX graphs: what they say equals what we say, and the example needs no PyTorch."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import tfcseg
from tests.helpers.command_line import call
from tests.helpers.media import LOSSLESS, write_video
from tests.helpers.tiny_model import NAMES, build_tiny_network, moving_images, randomise, tiny_card, write_tiny_model
from tfcseg.errors import TfcsegError
from tfcseg.inference import onnx_graphs
from tfcseg.inference.options import checked_options
from tfcseg.media.masks import read_mask
from tfcseg.model.tfc import build_segmenter
from tfcseg.weights.loading import load_model, save_model

EXAMPLE = Path(__file__).parents[2] / "assets" / "examples" / "onnx_video.py"
SIZE = (45, 70)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a model that sees keyframes at half the size, too, as the default does; it repairs points, which graphs do
    not."""
    card = tiny_card()
    defaults = dataclasses.replace(card.config.defaults, half_size_share=0.5, things_share=1.0)
    card = dataclasses.replace(card, config=dataclasses.replace(card.config, defaults=defaults, things=(3, 1)))
    network = build_segmenter(card.config).eval()
    torch.manual_seed(1)
    randomise(network.things)
    things = {f"things.{name}": tensor for name, tensor in network.things.state_dict().items()}
    network.load_state_dict({**build_tiny_network().state_dict(), **things})
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(path, network, card)
    return path


@pytest.fixture(scope="module")
def graphs(weights, tmp_path_factory):
    """What the command writes and says."""
    path = tmp_path_factory.mktemp("graphs") / "tiny.onnx"
    done = call("convert", weights, path, "--frame-size", "70x45")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(path), str(path.with_suffix(".non_keyframe.onnx"))]
    assert done.stderr == "100.00% of the labels in a test are those of PyTorch (one side, no sparse attention)\n"
    return path


@pytest.mark.parametrize("scale", [1, 4])
def test_the_example_without_pytorch_gives_our_labels(graphs, weights, tmp_path, scale):
    """On a video, its keyframes and the frames between them; large frames are halved before they are resized."""
    size = (scale * SIZE[0], scale * SIZE[1])
    noise = np.random.default_rng(0).integers(0, 100 if scale > 1 else 1, (*size, 3), np.uint8)
    images = [cv2.add(image, noise) for image in moving_images(6, size)]
    clip = write_video(tmp_path / "clip.mkv", images, video=LOSSLESS)
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['tfcseg'] = None; "
        f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", code, graphs, clip, tmp_path / "labels"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"6 frames; classes: {', '.join(NAMES)}\n"
    theirs = np.array([read_mask(path) for path in sorted((tmp_path / "labels").iterdir())])
    assert len({labels.tobytes() for labels in theirs}) == 6

    def agreement(**shares):
        options = {"sides": "one", "correlation": "aligned", "threshold": 0.0, **shares}
        ours = tfcseg.segment(images, weights, device="cpu", precision="fp32", **options)
        return np.mean([frame.labels for frame in ours] == theirs)

    assert agreement() >= 0.999
    assert max(agreement(half_size_share=0.0), agreement(things_share=0.0)) < 0.99


def test_the_example_is_short():
    assert len([line for line in EXAMPLE.read_text().splitlines() if line.strip()]) <= 44


def test_graphs_say_what_they_are(graphs):
    import onnx

    for path in (graphs, graphs.with_suffix(".non_keyframe.onnx")):
        model = onnx.load(path)
        onnx.checker.check_model(model)
        facts = json.loads({each.key: each.value for each in model.metadata_props}["tfcseg"])
        assert (facts["classes"], facts["frame_size"]) == ([*NAMES], [45, 70])
        assert facts["licence"] == "Apache-2.0"
    assert {path.suffix for path in graphs.parent.iterdir()} == {".onnx"}


def test_graphs_of_one_size_have_one_input(tmp_path):
    model = load_model(write_tiny_model(tmp_path / "tiny.safetensors"), device="cpu", fold=False)
    keyframe, non_keyframe = onnx_graphs._graphs(model, checked_options(model, sides="one", threshold=0.0))
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    logits, *memory = keyframe(image)
    assert len(memory) == len(onnx_graphs.MEMORY) - 2
    assert torch.allclose(non_keyframe(image, logits, *memory), logits, atol=1e-4)


def test_what_is_there_is_not_replaced_unasked(graphs, weights):
    done = call("convert", weights, graphs)
    assert done.returncode == 1
    assert "use --overwrite" in done.error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["out.onnx", "--frame-size", "720p"], "'720p' is not a frame size; use WIDTHxHEIGHT, such as 1280x720"),
        (["out.onnx", "--frame-size", "0x720"], "'0x720' is not a frame size"),
        (["out.onnx", "--name", "mine"], "--name and --licence are for .safetensors"),
        (["out.safetensors", "--size", "64"], "--frame-size and --size are for .onnx"),
        (["out.pt"], "give a name that ends in .safetensors or .onnx"),
    ],
)
def test_senseless_requests_are_one_line(weights, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    done = call("convert", weights, *arguments)
    assert done.returncode == 2
    assert words in done.error
    assert not list(tmp_path.iterdir())


class _Program:
    """In the place of what the exporter returns, which takes long."""

    def __init__(self):
        self.model = self
        self.metadata_props = {}

    def save(self, path):
        path.write_bytes(b"graph")


def test_graphs_that_disagree_are_not_kept(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.onnx.export", lambda *arguments, **options: _Program())
    monkeypatch.setattr(onnx_graphs, "_agreement", lambda *arguments: 0.5)
    with pytest.raises(TfcsegError, match=r"only 50\.00% of the labels are those of PyTorch; the graphs were not kept"):
        onnx_graphs.write_onnx(str(weights), tmp_path / "out.onnx", SIZE)
    assert not list(tmp_path.iterdir())


def test_packages_that_are_missing_are_named(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("tfcseg.inference.onnx_graphs.importlib.util.find_spec", lambda name: None)
    with pytest.raises(TfcsegError, match=r"ONNX graphs need onnx, onnxscript, onnxruntime; run: pip install"):
        onnx_graphs.write_onnx(str(weights), tmp_path / "out.onnx", SIZE)
