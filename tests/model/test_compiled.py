"""Compiled backbones (``--compile``): what is compiled, what is not, and that it says the same."""

import json
import shutil

import pytest
import torch
from torch import nn

from tests.helpers.command_line import call
from tests.helpers.media import write_clip
from tests.helpers.tiny_model import BACKBONES, build_tiny_model, build_tiny_network, moving_clip, write_tiny_model
from tfcseg.errors import TfcsegError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.model.ops.compiled import CompiledBackbone, compile_backbone

# torch warns of parts of its own that it imports for this.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


class Telling(nn.Module):
    """A backbone whose first level is 1 where it was computed by compiled code and 0 elsewhere."""

    channels = (1, 1, 1, 1)

    def encode_low(self, x):
        return torch.full_like(x, float(torch.compiler.is_compiling())), 2 * x

    def encode_high(self, x):
        return self.encode_low(x)


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    yield
    torch._dynamo.reset()


def test_only_batches_that_were_prepared_are_compiled():
    backbone = CompiledBackbone(Telling(), backend="eager")
    x = torch.randn(7, 3, 4, 6)
    with torch.inference_mode():
        assert not backbone.encode_low(x)[0].any()
        assert backbone.prepare(x[:2], 1) > 0
        is_compiled, doubled = backbone.encode_low(x)
        assert torch.equal(doubled, 2 * x)
        assert is_compiled[:, 0, 0, 0].tolist() == [1, 1, 1, 1, 1, 1, 0]  # three pairs, and one that is left over
        assert not backbone.encode_low(torch.randn(2, 3, 5, 6))[0].any()  # another size
        is_compiled = backbone.encode_high(doubled)[0]
        assert is_compiled.all()  # one keyframe at a time
        backbone.prepare(x[:3], 3)
        assert backbone.encode_low(x[:5])[0].all()  # three and two


def test_compiled_code_is_never_run_by_several_threads(torch_threads):
    """It is made for one number of threads, also when somebody else compiled it."""
    torch_threads(3)
    model = build_tiny_model()
    assert IntervalNetwork(model, checked_options(model)).workers == 3
    model.network.backbone = CompiledBackbone(model.network.backbone, backend="eager")
    assert IntervalNetwork(model, checked_options(model)).workers == 1


def test_a_shape_is_compiled_once():
    backbone = CompiledBackbone(Telling(), backend="eager")
    assert backbone.prepare(torch.randn(1, 3, 4, 6), 1) > 0
    assert backbone.prepare(torch.randn(1, 3, 4, 6), 1) == 0
    assert backbone.prepare(torch.randn(1, 3, 6, 4), 1) > 0


@pytest.mark.parametrize("name", BACKBONES)
def test_each_half_of_a_backbone_is_one_graph(name, monkeypatch):
    """Nothing in them makes torch.compile go back to Python, strips included."""
    monkeypatch.setattr("tfcseg.model.ops.strips.STRIP_BYTES", 100_000)  # two or three strips
    network = build_tiny_network(name).fold()
    backbone = CompiledBackbone(network.backbone, backend="eager")
    images = moving_clip(2, (32, 64)).contiguous(memory_format=torch.channels_last)
    backbone.prepare(images[:1], 1)
    with torch.inference_mode():
        low = network.backbone.encode_low(images)
        torch.testing.assert_close(backbone.encode_low(images), low, atol=1e-4, rtol=1e-4)
        high = network.backbone.encode_high(low[1])
        torch.testing.assert_close(backbone.encode_high(low[1]), high, atol=1e-4, rtol=1e-4)


def test_without_a_compiler_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    network = build_tiny_network()
    with pytest.raises(TfcsegError, match=r"needs a C compiler \(gcc or clang\), and none was"):
        compile_backbone(network, torch.randn(1, 3, 64, 64), 1)


def test_what_torch_cannot_compile_is_one_line():
    class Torn(Telling):
        def encode_low(self, x):
            torch._dynamo.graph_break()
            return x, x

    with pytest.raises(TfcsegError, match=r"^torch\.compile failed \([^\n]+\); leave --compile out$"):
        CompiledBackbone(Torn(), backend="eager").prepare(torch.randn(1, 3, 4, 6), 1)


def test_a_benchmark_of_many_sizes_is_not_compiled(tmp_path):
    done = call("bench", "--scaling", "length", "-o", tmp_path / "growth", "--compile")
    assert done.returncode == 2
    assert "leave --compile out" in done.error


def test_compiling_for_a_processor_is_refused(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 2)
    weights = write_tiny_model(tmp_path / "tiny.safetensors")
    done = call("run", clip, "-o", tmp_path / "out", "--model", weights, "--device", "cpu", "--compile")
    assert done.returncode == 2
    assert "--compile is for GPUs with CUDA; leave it out" in done.error
    assert not (tmp_path / "out").exists()


@needs_compiler
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_compiled_run_gives_the_same_labels_and_says_how_long_compiling_took(tmp_path):
    import cv2
    import numpy as np

    from tests.helpers.tiny_model import moving_images

    model = write_tiny_model(tmp_path / "tiny.safetensors")
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, image in enumerate(moving_images(6)):
        cv2.imwrite(str(frames / f"{index:04}.png"), image)
    masks = {}
    for option in ("--no-flow-consistency", "--compile"):
        folder = tmp_path / option
        done = call("run", frames, "-o", folder, "--model", model, "--no-overlay", "--device", "cuda", option)
        assert done.returncode == 0, done.stderr
        masks[option] = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((folder / "masks").iterdir())]
    assert np.mean(np.stack(masks["--compile"]) == np.stack(masks["--no-flow-consistency"])) >= 0.999
    report = json.loads((tmp_path / "--compile" / "report.json").read_bytes())
    assert report["options"]["compile"] is True
    assert 0 < report["speed"]["compile_s"] < report["speed"]["wall_s"]
    assert "before the first frame" in done.stderr
    report = json.loads((tmp_path / "--no-flow-consistency" / "report.json").read_bytes())
    assert report["options"]["compile"] is False
    assert report["speed"]["compile_s"] is None
