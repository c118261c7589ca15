"""Weights files: what is written comes back, and nothing damaged, foreign or hostile gets in."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_model import build_tiny_model
from tfcseg.errors import OutputError, UsageError, WeightsError
from tfcseg.labels.label_sets import LabelSet, distinct_palette
from tfcseg.model.config import ModelConfig
from tfcseg.model.options import PAPER_OPTIONS
from tfcseg.model.tfc import TFCSegmenter, build_segmenter
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import load_model, open_model, read_card, resolve_device, resolve_precision, save_model
from tfcseg.weights.model_card import IMAGENET_PREPROCESSING, ModelCard
from tfcseg.weights.registry import list_models
from tfcseg.weights.tensor_file import read_tensor_file, write_tensor_file

CONFIG = ModelConfig(
    "efficientnet_lite0",
    embed_dim=16,
    num_classes=3,
    heads=2,
    points=2,
    ffn_dim=16,
    defaults=dataclasses.replace(PAPER_OPTIONS, threshold=0.75),
)
LABELS = LabelSet("three", ("sky", "<b>road</b>", "Straße"), distinct_palette(3))
CARD = ModelCard(
    name="tiny",
    config=CONFIG,
    labels=LABELS,
    preprocessing=IMAGENET_PREPROCESSING,
    trained_on="nothing: random",
    licence="Apache-2.0",
    measured={"miou": 12.5, "on": "three frames"},
    created_with="tests/weights/test_weights.py",
    description="random numbers",
)
IMAGE = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> TFCSegmenter:
    torch.manual_seed(0)
    network = build_segmenter(CONFIG).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "tiny.safetensors"
    save_model(path, network, CARD)
    return path


@pytest.fixture
def damaged(saved, tmp_path):
    """Write a copy of the saved file with some tensors or some entries of the card replaced, None removing them."""

    def write(*, tensors=None, metadata=None) -> Path:
        file = read_tensor_file(saved)
        content = {name: t for name, t in (file.tensors | (tensors or {})).items() if t is not None}
        texts = {key: value for key, value in (file.metadata | (metadata or {})).items() if value is not None}
        write_tensor_file(tmp_path / "damaged.safetensors", content, texts)
        return tmp_path / "damaged.safetensors"

    return write


def with_header(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@torch.inference_mode()
def test_a_network_comes_back(network, tmp_path):
    sha256 = save_model(tmp_path / "exact.safetensors", network, CARD, dtype=torch.float32)
    assert [file.name for file in tmp_path.iterdir()] == ["exact.safetensors"]
    model = load_model(tmp_path / "exact.safetensors", device="cpu", fold=False)
    state = model.network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    wanted = copy.deepcopy(network).to(memory_format=torch.channels_last).keyframe(IMAGE)[0]
    assert torch.equal(model.network.keyframe(IMAGE)[0], wanted)
    assert (model.card, model.labels) == (CARD, LABELS)
    assert (model.device, model.precision) == (torch.device("cpu"), torch.float32)
    assert model.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert model.sha256 == sha256 == hashlib.sha256((tmp_path / "exact.safetensors").read_bytes()).hexdigest()
    assert not any(module.training for module in model.network.modules())


def test_loaded_networks_can_be_trained_further(saved):
    network = load_model(saved, device="cpu", fold=False).network.train()
    network.image(IMAGE).sum().backward()
    assert network.decode_head.classifier.weight.grad is not None
    torch.optim.SGD(network.parameters(), lr=0.1).step()


@torch.inference_mode()
def test_files_are_half_precision_and_networks_single_if_asked(network, saved):
    stored = read_tensor_file(saved).tensors
    assert stored["decode_head.fuse.weight"].dtype == torch.float16
    assert stored["decode_head.norm.running_var"].dtype == torch.float32
    model = load_model(saved, device="cpu", precision="fp32")
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}
    torch.testing.assert_close(model.network.keyframe(IMAGE)[0], network.keyframe(IMAGE)[0], atol=5e-3, rtol=0)


@torch.inference_mode()
def test_networks_are_folded_unless_asked(saved):
    plain, folded = (load_model(saved, device="cpu", precision="fp32", fold=fold).network for fold in (False, True))
    assert len(list(folded.parameters())) < len(list(plain.parameters()))
    torch.testing.assert_close(folded.keyframe(IMAGE)[0], plain.keyframe(IMAGE)[0], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_bf16_network_folds_before_it_loses_precision(saved):
    model = load_model(saved, device="cpu", precision="bf16")
    assert model.precision == torch.bfloat16
    logits = model.network.keyframe(IMAGE.bfloat16())[0]
    assert logits.dtype == torch.float32
    wanted = load_model(saved, device="cpu", precision="fp32").network.keyframe(IMAGE)[0]
    assert (logits - wanted).abs().mean() < 0.03 * wanted.std()


def test_loading_does_not_start_torchs_compiler(saved):
    """Its import would cost every command a second or more."""
    script = (
        "import sys; from tfcseg.weights.loading import load_model; load_model(sys.argv[1], device='cpu'); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, saved], check=False).returncode == 0


def test_a_header_that_begins_like_a_pickle_is_none(tmp_path):
    """Its length may begin with a pickle's first byte, 0x80."""
    header = entry().ljust(0x80)
    assert read_tensor_file(with_header(tmp_path / "x.safetensors", header, b"1234")).tensors.keys() == {"x"}


def test_the_card_is_read_from_the_header_alone(saved, tmp_path):
    content = bytearray(saved.read_bytes())
    content[-1000:] = b"\xff" * 1000
    (tmp_path / "noise.safetensors").write_bytes(content)
    assert read_card(tmp_path / "noise.safetensors") == CARD


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"extra.weight": torch.zeros(1)}, "has tensors that the network does not have: 'extra.weight'"),
        ({"decode_head.fuse.weight": None}, "lacks tensors that the network needs: 'decode_head.fuse.weight'"),
        ({"decode_head.norm.weight": torch.zeros(17)}, r"has shape \(17,\), the network needs \(16,\)"),
        ({"decode_head.norm.weight": torch.zeros(16).double()}, "is torch.float64"),
        ({"decode_head.norm.weight": torch.zeros(16).int()}, "is torch.int32"),
        ({"decode_head.norm.num_batches_tracked": torch.tensor(0.0)}, "is torch.float32; expected torch.int64"),
        ({"decode_head.norm.weight": torch.full((16,), torch.inf)}, "NaN or infinity"),
        ({"decode_head.norm.running_var": torch.full((16,), torch.nan)}, "NaN or infinity"),
        ({"decode_head.norm.running_var": torch.full((16,), -1.0)}, "holds negative variances"),
        ({"decode_head.norm.bias": torch.zeros(16).bool()}, "is torch.bool"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(damaged, tensors, message):
    path = damaged(tensors=tensors)
    with pytest.raises(WeightsError, match=message) as failure:
        load_model(path, device="cpu")
    assert str(path) in str(failure.value)


def changed(entry: dict, **changes) -> str:
    return json.dumps(entry | changes)


_CONFIG = json.loads(CARD.to_metadata()["config"])
_LABELS = dataclasses.asdict(LABELS)
_PREPROCESSING = dataclasses.asdict(IMAGENET_PREPROCESSING)


def test_options_that_a_file_leaves_out_are_the_papers(damaged):
    fewer = {key: value for key, value in _CONFIG.items() if key != "half_size_share"}
    path = damaged(metadata={"config": json.dumps(fewer)})
    assert read_card(path).config.defaults.half_size_share == 0
    path = damaged(metadata={"config": changed(_CONFIG, half_size_share=0.5)})
    assert load_model(path, device="cpu").network.config.defaults.half_size_share == 0.5


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": None}, "does not belong to a SegFormer|none of a SegFormer's tensors"),
        ({"format": "tfcseg-2"}, "of format 'tfcseg-2', not 'tfcseg-1'"),
        ({"licence": None}, "licence is missing"),
        ({"config": None}, "config is missing"),
        ({"surprise": "1"}, "unknown entry 'surprise'"),
        ({"name": "x" * 101}, "'name' must be a line of at most 100 characters"),
        ({"name": "two\nlines"}, "'name' must be a line"),
        ({"description": "\x1b[2J"}, "'description' must be a line"),
        ({"config": "{"}, "config: "),
        ({"config": "[]"}, "config: not a JSON object"),
        ({"config": '{"heads": 1, "heads": 2}'}, "config: 'heads' is given twice"),
        ({"config": "[" * 100_000}, "config: JSON is nested too deeply"),
        ({"config": changed(_CONFIG, backbone="mit_b6")}, "config: unknown backbone 'mit_b6'"),
        ({"config": changed(_CONFIG, backbone=[])}, "config: unknown backbone"),
        ({"config": changed(_CONFIG, correlation="none")}, "config: unknown correlation 'none'"),
        ({"config": changed(_CONFIG, half_size_share=1.5)}, "'half_size_share' must be a number from 0 to 1, not 1.5"),
        ({"config": changed(_CONFIG, embed_dim=10**9)}, "'embed_dim' must be a number from 1 to 2048"),
        ({"config": changed(_CONFIG, embed_dim=16.0)}, "embed_dim must be a whole number"),
        ({"config": changed(_CONFIG, embed_dim=15)}, "embed_dim 15 is not a multiple of 2 heads"),
        ({"config": changed(_CONFIG, points=True)}, "'points' must be a number"),
        ({"config": changed(_CONFIG, threshold="0.8")}, "'threshold' must be a number from 0 to 1"),
        ({"config": changed(_CONFIG, num_classes=2)}, "3 labels for 2 classes"),
        ({"config": changed(_CONFIG, depth=3)}, "config: unknown entry 'depth'"),
        ({"labels": changed(_LABELS, names=["a", "a", "b"])}, "names a class twice"),
        ({"labels": changed(_LABELS, names=["a", "b", 3])}, "'class name' must be a line"),
        ({"labels": changed(_LABELS, names="abc")}, "names must be a list"),
        ({"labels": changed(_LABELS, palette=[[1, 2, 3], [1, 2, 256], [0, 0, 0]])}, "from 0 to 255, not 256"),
        ({"labels": changed(_LABELS, palette=[[1, 2], [1, 2], [0, 0]])}, "colour must be a list of 3"),
        ({"preprocessing": changed(_PREPROCESSING, std=[1, 0, 1])}, "'std' must be a number from 0.001"),
        ({"preprocessing": changed(_PREPROCESSING, mean=[1, 2])}, "mean must be a list of 3"),
        ({"preprocessing": changed(_PREPROCESSING, size=31)}, "'size' must be a number from 32 to 4096"),
        ({"preprocessing": '{"size": 480, "mean": [NaN, 1, 1], "std": [1, 1, 1]}'}, "NaN is not a number"),
        ({"measured": '{"miou": 1e999}'}, "'miou' must be a number"),
        ({"measured": '{"miou": ' + "9" * 400 + "}"}, "'miou' must be a number"),
    ],
)
def test_damaged_cards_are_refused(damaged, metadata, message):
    path = damaged(metadata=metadata)
    for read in (read_card, load_model):
        with pytest.raises(WeightsError, match=message) as failure:
            read(path)
        assert str(failure.value).startswith(str(path))
        assert "\n" not in str(failure.value)
        assert len(str(failure.value)) < len(str(path)) + 300


def entry(**changes) -> bytes:
    return json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}).encode()


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"not json", b"", "damaged one"),
        (b"\xff\xfe", b"", "damaged one"),
        (b"[]", b"", "damaged one"),
        (b"{" * 5000, b"", "damaged one"),
        (b'{"a":' * 100_000, b"", "recursion limit exceeded"),
        (b'{"__metadata__": {"a": 1}}', b"", "expected a string"),
        (b'{"__metadata__": []}', b"", "damaged one"),
        (b" " * (1 << 20) + b"{}", b"", "header is longer than 1048576 bytes"),
        (entry(), b"123", "file not fully covered"),
        (entry(), b"12345", "file not fully covered"),
        (entry(dtype="F128"), b"1234", "unknown variant"),
        (entry(dtype="F8_E8M0", shape=[4]), b"1234", "F8_E8M0"),
        (entry(data_offsets=[0, "4"]), b"1234", "damaged one"),
        (entry(shape=[2]), b"1234", "damaged one"),
        (entry(shape=[-1]), b"1234", "damaged one"),
        (entry(data_offsets=[2, 4]), b"1234", "damaged one"),
    ],
)
def test_damaged_headers_are_refused(tmp_path, header, data, message):
    path = with_header(tmp_path / "x.safetensors", header, data)
    with pytest.raises(WeightsError, match=message) as failure:
        read_tensor_file(path)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("length", [0, 5, 8, 200, 40_000, -1])
def test_truncated_files_are_refused(saved, tmp_path, length):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(saved.read_bytes()[:length])
    for read in (read_card, load_model):
        with pytest.raises(WeightsError, match="damaged one"):
            read(path)


def test_a_header_length_beyond_the_file_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "x.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsError, match="header is longer than 1048576 bytes"):
        read_card(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes((1000).to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsError, match="invalid header length"):
        read_card(tmp_path / "x.safetensors")


def test_a_huge_file_is_refused_unread(tmp_path):
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.truncate(3 << 30)  # sparse: takes no room
    with pytest.raises(WeightsError, match="larger than 2 GiB"):
        load_model(tmp_path / "x.safetensors", device="cpu")


class RunsWhenOpened:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("save", ["torch.save", "pickle.dump"])
def test_pickles_are_never_opened(save, tmp_path):
    trace, path = tmp_path / "it-ran", tmp_path / "model.safetensors"
    content = {"state_dict": {"a": torch.zeros(1)}, "meta": RunsWhenOpened(trace)}
    if save == "torch.save":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    for read in (read_card, load_model):
        with pytest.raises(WeightsError, match="which is not opened"):
            read(path)
    assert not trace.exists()


def test_files_that_are_none(tmp_path):
    for path in (tmp_path, tmp_path / "missing.safetensors", Path("/dev/null")):
        with pytest.raises(WeightsError, match=r"no weights file|is a folder without"):
            load_model(path)


def test_what_could_not_be_loaded_is_not_written(network, tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match="describes another network"):
        save_model(path, network, dataclasses.replace(CARD, config=dataclasses.replace(CONFIG, heads=4)))
    with pytest.raises(WeightsError, match="'licence' must be a line"):
        save_model(path, network, dataclasses.replace(CARD, licence="a\nb"))
    with pytest.raises(WeightsError, match=r"'miou' must be a number|NaN is not a number"):
        save_model(path, network, dataclasses.replace(CARD, measured={"miou": float("nan")}))
    large = build_segmenter(CONFIG)
    torch.nn.init.constant_(large.decode_head.classifier.bias, 1e6)
    with pytest.raises(WeightsError, match=r"'decode_head.classifier.bias' holds NaN or infinity"):
        save_model(path, large, CARD)
    with pytest.raises(WeightsError, match="that the network does not have"):
        save_model(path, build_segmenter(CONFIG).fold(), CARD)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_is_an_output_error(network, tmp_path):
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        save_model(tmp_path / "taken.safetensors", network, CARD)
    with pytest.raises(OutputError, match="cannot write"):
        save_model(tmp_path / "no folder" / "x.safetensors", network, CARD)
    assert [file.name for file in tmp_path.iterdir()] == ["taken.safetensors"]


@pytest.fixture
def assets(saved, tmp_path) -> Path:
    """Make a registry of two models."""
    models = {}
    for name in ("tiny-street", "tiny-indoor"):
        (tmp_path / f"{name}.safetensors").write_bytes(saved.read_bytes())
        models[name] = {"file": f"{name}.safetensors", "sha256": hashlib.sha256(saved.read_bytes()).hexdigest()}
    (tmp_path / "models.json").write_text(json.dumps({"default": "tiny-street", "models": models}))
    return tmp_path


def test_the_registry_names_models(assets):
    records = list_models(assets)
    assert [(record.name, record.is_default) for record in records] == [("tiny-indoor", False), ("tiny-street", True)]
    assert read_card(records[0].path) == CARD
    model = load_model("tiny-indoor", device="cpu", assets=assets)
    assert model.sha256 == records[0].sha256
    assert load_model(device="cpu", assets=assets).sha256 == records[1].sha256


@pytest.mark.parametrize("address", ["https://host/m.safetensors", "https://huggingface.co/org/name"])
def test_an_address_is_refused_as_it_was_given(address):
    with pytest.raises(WeightsError, match=f"'{address}' is an address; download the weights"):
        load_model(address, device="cpu")


def test_a_name_that_is_not_there(assets):
    with pytest.raises(WeightsError, match="no model or weights file 'tiny-stret'; did you mean tiny-street"):
        load_model("tiny-stret", device="cpu", assets=assets)
    with pytest.raises(WeightsError, match="there are tiny-indoor, tiny-street"):
        load_model("xyz", device="cpu", assets=assets)
    with pytest.raises(WeightsError, match="no folder 'tiny-street/'; give a weights file, a folder"):
        load_model("tiny-street/", device="cpu", assets=assets)


def test_another_file_under_a_name_is_refused(assets, network):
    save_model(assets / "tiny-street.safetensors", network, dataclasses.replace(CARD, name="other"))
    with pytest.raises(WeightsError, match=r"not the file that models.json names"):
        load_model("default", device="cpu", assets=assets)
    assert load_model(assets / "tiny-street.safetensors", device="cpu").card.name == "other"


@pytest.mark.parametrize(
    "registry",
    [
        "{",
        "[]",
        '{"default": "a", "models": {}}',
    ],
)
def test_a_damaged_registry_is_refused(registry, tmp_path):
    (tmp_path / "models.json").write_text(registry)
    with pytest.raises(WeightsError, match=r"models.json.*install tfcseg again"):
        list_models(tmp_path)


def test_paths_need_no_registry(saved, tmp_path):
    assert load_model(str(saved), device="cpu", assets=tmp_path).card == CARD


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0", "cuda:", "", "cuda:99", "cuda\n"])
def test_devices_that_are_not_there(device):
    with pytest.raises(UsageError, match=r"^(no device|device) .*(there are auto|use cpu)"):
        resolve_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="checks the message without a GPU")
def test_devices_without_a_gpu(saved):
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"'cuda' is not available.*use cpu"):
        load_model(saved, device="cuda")


@pytest.mark.parametrize("has", [True, False])
def test_precisions(has, monkeypatch):
    monkeypatch.setattr("tfcseg.weights.loading.has_bfloat16", lambda: has)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert resolve_precision("auto", cpu) == (torch.bfloat16 if has else torch.float32)
    assert resolve_precision("auto", torch.device("mps")) == torch.float32
    assert resolve_precision("auto", cuda) == torch.float16
    assert resolve_precision("bf16", cpu) == torch.bfloat16
    with pytest.raises(UsageError, match="fp16 needs a GPU; use fp32"):
        resolve_precision("fp16", cpu)
    with pytest.raises(UsageError, match="no precision 'half'; there are auto, fp32, bf16, fp16"):
        resolve_precision("half", cpu)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.inference_mode()
def test_half_precision_on_a_gpu(saved):
    model = load_model(saved, device="cuda")
    assert model.precision == torch.float16
    logits = model.network.keyframe(IMAGE.half().cuda())[0].float().cpu()
    wanted = load_model(saved, device="cpu").network.keyframe(IMAGE)[0]
    assert (logits - wanted).abs().max() < 0.05 * wanted.std()


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (DeviceOptions("cpu", "bf16"), "the model was loaded as float32; pass precision='bf16' to load_model"),
        (DeviceOptions("auto", "bf16"), "the model was loaded as float32; pass precision='bf16' to load_model"),
        (DeviceOptions("cpu", "fp64"), "no precision 'fp64'"),
        (DeviceOptions("gpu"), "no device 'gpu'"),
    ],
)
def test_a_loaded_model_keeps_its_device_and_precision(device, words):
    model = build_tiny_model()
    for same in (DeviceOptions(), DeviceOptions("cpu"), DeviceOptions("cpu", "fp32")):
        assert open_model(model, same) is model
    with pytest.raises(UsageError, match=words):
        open_model(model, device)


@pytest.mark.parametrize("given", ["cuda", "cuda:0", "cpu"])
def test_a_loaded_model_has_one_name_for_the_first_gpu(given, monkeypatch):
    monkeypatch.setattr("tfcseg.weights.loading.resolve_device", torch.device)
    model = dataclasses.replace(build_tiny_model(), device=torch.device("cuda"))
    if given != "cpu":
        assert open_model(model, DeviceOptions(given)) is model
        return
    with pytest.raises(UsageError, match="the model was loaded on cuda; pass device='cpu' to load_model"):
        open_model(model, DeviceOptions(given))
