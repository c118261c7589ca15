"""Published SegFormers into ours: three sets of names, folders and pickles, and everything that must be refused."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.segformer_reference import LAYOUTS, build_reference, encode_reference, in_layout
from tfcseg.errors import WeightsError
from tfcseg.labels.label_sets import LabelSet, distinct_palette
from tfcseg.model.config import ModelConfig
from tfcseg.model.tfc import build_segmenter
from tfcseg.weights.convert import (
    DEFAULTS,
    DESCRIPTION,
    ConvertedEncoder,
    ConvertedModel,
    convert_pretrained,
    convert_segformer,
)
from tfcseg.weights.tensor_file import write_tensor_file

IMAGE = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def reference():
    return build_reference("b0", embed_dim=64, num_classes=3)


@pytest.fixture(scope="module")
def tensors(reference) -> dict[str, Tensor]:
    """Tensors under the names that files on the Hugging Face hub have."""
    return in_layout(reference.state_dict(), "transformers_4")


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    write_tensor_file(path, tensors, {"format": "pt"})
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.inference_mode()
def test_every_layout_gives_the_same_network(reference, layout, tmp_path):
    file = write(tmp_path / "b0.safetensors", in_layout(reference.state_dict(), layout))
    converted = convert_segformer(file)
    config = ModelConfig("mit_b0", embed_dim=64, num_classes=3, defaults=DEFAULTS, repairs=False)
    assert converted.card.config == config
    torch.testing.assert_close(converted.network.eval().keyframe(IMAGE)[0], reference(IMAGE).logits, atol=1e-4, rtol=0)


def test_layouts_map_to_identical_tensors(reference, tmp_path):
    states = []
    for layout in LAYOUTS:
        file = write(tmp_path / f"{layout}.safetensors", in_layout(reference.state_dict(), layout))
        states.append(convert_segformer(file).network.state_dict())
    image_network = [name for name in states[0] if not name.startswith("update.")]
    for other in states[1:]:
        assert all(torch.equal(states[0][name], other[name]) for name in image_network)
    assert torch.equal(states[0]["decode_head.norm.num_batches_tracked"], torch.tensor(7))


def test_layouts_differ_as_they_should(tensors):
    """The renamings of this test's own helper are real: each layout has a name that the others lack."""
    five, nvlabs = in_layout(tensors, "transformers_5"), in_layout(tensors, "nvlabs")
    assert "segformer.encoder.block.0.1.attention.self.query.weight" in tensors
    assert "segformer.stages.0.blocks.1.attention.q_proj.weight" in five
    assert nvlabs["backbone.block1.1.attn.kv.weight"].shape == (64, 32)
    assert {"backbone.patch_embed4.proj.bias", "decode_head.linear_c4.proj.weight"} <= nvlabs.keys()


def test_a_folder_saved_by_the_installed_transformers(reference, tmp_path):
    reference.config.id2label = {0: "wall", 1: "screen", 2: "screen"}
    reference.save_pretrained(tmp_path / "segformer-b0")
    converted = convert_segformer(tmp_path / "segformer-b0")
    assert converted.card.labels.name == "segformer-b0"
    assert converted.card.labels.names == ("wall", "screen", "screen (2)")
    assert torch.equal(converted.network.decode_head.classifier.weight, reference.decode_head.classifier.weight)


def test_an_nvlabs_checkpoint_with_its_meta_data(reference, tmp_path):
    state = OrderedDict(in_layout(reference.state_dict(), "nvlabs"))
    state["decode_head.conv_seg.weight"] = torch.zeros(3, 128, 1, 1)
    state["decode_head.conv_seg.bias"] = torch.zeros(3)
    meta = {"CLASSES": ["sky", "road", "car"], "PALETTE": [[1, 2, 3], [4, 5, 6], [7, 8, 255]], "epoch": 3}
    torch.save({"state_dict": state, "meta": meta, "optimizer": {"lr": 1e-4}}, tmp_path / "segformer.b0.pth")
    labels = convert_segformer(tmp_path / "segformer.b0.pth").card.labels
    assert labels == LabelSet("segformer.b0", ("sky", "road", "car"), ((1, 2, 3), (4, 5, 6), (7, 8, 255)))


def test_a_bare_state_dict_in_half_precision_and_without_batch_count(tensors, tmp_path):
    halves = {name: t.half() for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    torch.save(halves, tmp_path / "half.pt")
    converted = convert_segformer(str(tmp_path / "half.pt"))
    weight = converted.network.state_dict()["backbone.stages.2.embedding.weight"]
    assert torch.equal(weight, halves["segformer.encoder.patch_embeddings.2.proj.weight"].float())
    assert converted.network.state_dict()["decode_head.norm.num_batches_tracked"] == 0
    assert converted.card.labels == LabelSet("half", ("class 0", "class 1", "class 2"), distinct_palette(3))


def test_the_tfc_layer_stays_the_identity(tensors, tmp_path):
    converted = convert_segformer(write(tmp_path / "b0.safetensors", tensors))
    assert DESCRIPTION in converted.card.description
    assert not converted.card.config.repairs
    update = converted.network.update
    for layer in (update.attention.output, update.ffn_out):
        assert not layer.weight.any()
        assert not layer.bias.any()


def test_labels_beside_the_weights_must_fit(tensors, tmp_path):
    file = write(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "segformer", "id2label": {"0": "a", "1": "b"}}))
    with pytest.raises(WeightsError, match=r"3 classes, label set .* has 2"):
        convert_segformer(file)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet", "id2label": {"0": "a", "1": "b"}}))
    assert convert_segformer(file).card.labels.names == ("class 0", "class 1", "class 2")
    (tmp_path / "config.json").write_text("{" * 100_000)
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        convert_segformer(file)


def without(tensors: dict[str, Tensor], *parts: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not any(part in name for part in parts)}


_KEY = "segformer.encoder.block.1.0.attention.self.key.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t | {"decode_head.extra.weight": torch.zeros(1)}, "'decode_head.extra.weight' does not belong"),
        (lambda t: t | {"classifier.weight": torch.zeros(9, 256)}, "'classifier.weight' does not belong"),
        (lambda t: t | {"backbone.norm1.weight": torch.zeros(32)}, "appears twice"),
        (lambda t: without(t, "linear_c.2"), "lacks tensors.*decode_head.projections.2"),
        (lambda t: without(t, "decode_head"), "has no decode head"),
        (lambda t: without(t, "self.value"), "values for .* missing"),
        (lambda t: t | {_KEY: torch.zeros(9, 64)}, "values for .* another shape"),
        (lambda t: without(t, "encoder.block.3.1"), r"\(2, 2, 2, 1\) blocks are not a Mix Transformer variant"),
        (lambda t: without(t, "batch_norm"), "from an embedding of 0"),
        (lambda t: t | {"decode_head.linear_fuse.weight": torch.zeros(64)}, "has no decode head"),
        (lambda t: t | {"decode_head.batch_norm.bias": torch.zeros(12)}, "embedding of 12"),
        (lambda t: t | {"decode_head.linear_c.0.proj.weight": torch.zeros(64, 33)}, r"\(64, 33\).*\(64, 32\)"),
        (lambda t: t | {"decode_head.batch_norm.weight": torch.zeros(64).long()}, "torch.int64"),
        (lambda t: t | {"decode_head.batch_norm.weight": torch.full((64,), torch.nan)}, "NaN"),
    ],
)
def test_damage_is_refused(tensors, damage, message, tmp_path):
    with pytest.raises(WeightsError, match=message) as failure:
        convert_segformer(write(tmp_path / "b0.safetensors", damage(tensors)))
    assert "\n" not in str(failure.value)
    assert "b0.safetensors" in str(failure.value)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        {"state_dict": [1, 2]},
        {"weight": torch.zeros(3).to_sparse()},
        {3: torch.zeros(3)},
    ],
)
def test_a_pickle_of_other_things_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "b0.pth")
    with pytest.raises(WeightsError, match="named tensors"):
        convert_segformer(tmp_path / "b0.pth")


class RunsWhenOpened:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_pickle_does_not_run(protocol, tmp_path):
    trace, file = tmp_path / "it-ran", tmp_path / "b0.pth"
    file.write_bytes(pickle.dumps({"state_dict": RunsWhenOpened(trace)}, protocol))
    with pytest.raises(WeightsError, match="not opened"):
        convert_segformer(file)
    assert not trace.exists()
    pickle.loads(file.read_bytes())
    assert trace.exists()  # so the file would have run


def test_truncated_pickles_and_empty_folders_are_refused(tensors, tmp_path):
    torch.save(tensors, tmp_path / "b0.pth")
    (tmp_path / "b0.pth").write_bytes((tmp_path / "b0.pth").read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"b0\.pth is damaged"):
        convert_segformer(tmp_path / "b0.pth")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match=r"without model\.safetensors"):
        convert_segformer(tmp_path / "folder")
    with pytest.raises(WeightsError, match="no weights file"):
        convert_segformer(tmp_path / "missing.pth")


# -------------------------------------------------------------------------------------------- what training starts from


@pytest.fixture(scope="module")
def encoder(tensors) -> dict[str, Tensor]:
    """A Mix Transformer with its classifier of images, as ImageNet's are on the Hugging Face hub."""
    classifier = {"classifier.weight": torch.ones(7, 256), "classifier.bias": torch.zeros(7)}
    return without(tensors, "decode_head") | classifier


def as_nvlabs_encoder(encoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """mit_b0.pth: neither prefix nor Hugging Face's name of the classifier."""
    backbone = {n.removeprefix("backbone."): t for n, t in in_layout(without(encoder, "classifier"), "nvlabs").items()}
    return backbone | {f"head.{part}": encoder[f"classifier.{part}"] for part in ("weight", "bias")}


@torch.inference_mode()
def test_an_encoder_alone_is_the_same_backbone(reference, encoder, tmp_path):
    published = {
        "hub.safetensors": encoder,
        "five.safetensors": in_layout(encoder, "transformers_5"),
        "mit_b0.safetensors": as_nvlabs_encoder(encoder),
        "bare.safetensors": without(encoder, "classifier"),
    }
    expected = encode_reference(reference, IMAGE)
    for name, content in published.items():
        converted = convert_pretrained(write(tmp_path / name, content))
        assert isinstance(converted, ConvertedEncoder)
        assert converted.backbone == "mit_b0"
        backbone = build_segmenter(ModelConfig("mit_b0", 8, 2)).backbone.eval()
        backbone.load_state_dict({n.removeprefix("backbone."): t for n, t in converted.state_dict.items()}, strict=True)
        x1, x2 = backbone.encode_low(IMAGE)
        for ours, theirs in zip((x1, x2, *backbone.encode_high(x2)), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_whole_network_keeps_its_head(tensors, tmp_path):
    file = write(tmp_path / "b0.safetensors", tensors)
    converted, expected = convert_pretrained(file), convert_segformer(file)
    assert isinstance(converted, ConvertedModel)
    assert converted.card.config == expected.card.config
    head, wanted = (each.network.decode_head.state_dict() for each in (converted, expected))
    assert len(head) > 10
    assert all(torch.equal(head[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: without(t, "layer_norm_1"), "lacks tensors .*attention_norm"),
        (lambda t: t | {"fc.weight": torch.zeros(3)}, "'fc.weight' does not belong"),
        (lambda t: without(t, "encoder.block.3"), "are not a Mix Transformer variant"),
        (lambda t: {"weight": torch.zeros(3)}, "none of a SegFormer's tensors"),
        (lambda t: t | {"segformer.encoder.layer_norm.0.weight": torch.full((32,), torch.nan)}, "NaN"),
    ],
)
def test_a_damaged_encoder_is_refused(encoder, damage, message, tmp_path):
    with pytest.raises(WeightsError, match=message) as failure:
        convert_pretrained(write(tmp_path / "mit.safetensors", damage(encoder)))
    assert "\n" not in str(failure.value)
