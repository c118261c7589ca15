"""MiT against transformers' SegFormer, and what the network promises about itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.segformer_reference import build_reference, encode_reference, in_layout, use_original_epsilons
from tfcseg.model.backbones.mix_transformer import MIT_VARIANTS, Block, DropPath, build_mix_transformer
from tfcseg.model.tfc import TFCSegmenter
from tfcseg.weights.convert import convert_segformer
from tfcseg.weights.tensor_file import write_tensor_file

EMBED_DIMS = {"b0": 256, "b2": 768}
"""Of the decode heads that NVlabs published these variants with."""

SIZES = [(96, 160), (70, 101)]


def padded_image(size: tuple[int, int], seed: int = 1) -> Tensor:
    """Random image (1, 3, H, W), padded at the bottom right to multiples of 32."""
    height, width = size
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return F.pad(image, (0, -width % 32, 0, -height % 32))


@pytest.fixture(scope="module", params=EMBED_DIMS)
def pair(request, tmp_path_factory):
    """Build a reference with the original's epsilons, and ours with the same weights."""
    reference = build_reference(request.param, embed_dim=EMBED_DIMS[request.param])
    use_original_epsilons(reference)
    path = tmp_path_factory.mktemp("reference") / "model.safetensors"
    write_tensor_file(path, in_layout(reference.state_dict(), "transformers_4"), {})
    return reference, convert_segformer(path).network.eval()


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_features_of_every_stage_match_the_reference(pair, size):
    reference, network = pair
    image = padded_image(size)
    low = network.backbone.encode_low(image)
    ours = (*low, *network.backbone.encode_high(low[1]))
    for level, (feature, wanted) in enumerate(zip(ours, encode_reference(reference, image), strict=True)):
        assert feature.shape == (1, network.backbone.channels[level], *(s >> level + 2 for s in image.shape[2:]))
        assert wanted.std() > 0.5
        torch.testing.assert_close(feature, wanted, atol=2e-5, rtol=0)


@torch.inference_mode()
def test_features_match_in_double_precision(pair):
    """Only here do the two values of epsilon show: float32's own rounding hides them."""
    reference, network = pair
    image = padded_image((64, 96)).double()
    wanted = encode_reference(reference.double(), image)
    low = network.double().backbone.encode_low(image)
    ours = (*low, *network.backbone.encode_high(low[1]))
    reference.float()
    network.float()
    for feature, level in zip(ours, wanted, strict=True):
        torch.testing.assert_close(feature, level, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_logits_match_the_reference(pair, size):
    reference, network = pair
    image = padded_image(size)
    wanted = reference(image).logits
    assert wanted.std() > 0.1
    torch.testing.assert_close(network.keyframe(image)[0], wanted, atol=2e-5, rtol=0)


@torch.inference_mode()
def test_logits_stay_close_to_transformers_own_epsilons(pair):
    reference, network = pair
    image = padded_image((96, 160))
    for module in reference.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    wanted = reference(image).logits
    use_original_epsilons(reference)
    torch.testing.assert_close(network.keyframe(image)[0], wanted, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_batch_equals_its_images_one_by_one(pair):
    network: TFCSegmenter = pair[1]
    images = torch.cat([padded_image((64, 96), seed) for seed in (1, 2)])
    together = network.backbone.encode_low(images)[1]
    apart = torch.cat([network.backbone.encode_low(image[None])[1] for image in images])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_features_are_channels_last_without_a_copy():
    network = build_mix_transformer("b0").eval()
    low = network.encode_low(padded_image((64, 96)))
    for feature in (*low, *network.encode_high(low[1])):
        assert feature.is_contiguous(memory_format=torch.channels_last)
        assert feature.flatten(2).transpose(1, 2).is_contiguous()


# Parameters of the encoders in millions: SegFormer's table 1 counts them to one digit.
@pytest.mark.parametrize(
    ("variant", "millions"), [("b0", 3.4), ("b1", 13.1), ("b2", 24.2), ("b3", 44.0), ("b4", 60.8), ("b5", 81.4)]
)
def test_variants_have_the_published_sizes(variant, millions):
    with torch.device("meta"):
        network = build_mix_transformer(variant)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.11)
    assert network.channels == MIT_VARIANTS[variant].channels
    assert tuple(len(stage.blocks) for stage in network.stages) == MIT_VARIANTS[variant].depths


def test_drop_path_zeroes_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop_path = DropPath(0.25)
    dropped = drop_path(torch.ones(4000, 2, 3))
    values = dropped.flatten(1)
    assert (values == values[:, :1]).all()
    assert sorted(set(values[:, 0].tolist())) == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.03)
    assert torch.equal(drop_path.eval()(torch.ones(4, 2, 3)), torch.ones(4, 2, 3))


def test_drop_path_grows_linearly_with_depth():
    with torch.device("meta"):
        network = build_mix_transformer("b2", drop_path=0.3)
    probabilities = [block.drop_path.probability for block in network.modules() if isinstance(block, Block)]
    assert probabilities == pytest.approx([0.3 * block / 15 for block in range(16)])
    with torch.device("meta"):
        assert build_mix_transformer("b0").stages[3].blocks[1].drop_path.probability == pytest.approx(0.1)


def test_initial_values():
    torch.manual_seed(0)
    network = build_mix_transformer("b1")
    block = network.stages[3].blocks[0]
    assert block.ffn.expand.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert block.ffn.depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert network.stages[1].embedding.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert not any(parameter.any() for name, parameter in network.named_parameters() if name.endswith("bias"))


def test_every_parameter_learns():
    network = build_mix_transformer("b0", drop_path=0.0).train()
    low = network.encode_low(padded_image((64, 64)))
    high = network.encode_high(low[1])
    sum(feature.square().mean() * weight for weight, feature in enumerate((*low, *high), start=1)).backward()
    # LayerNorm makes a stage's mean square constant but for its own scale, so look for gradients, not for their size.
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
