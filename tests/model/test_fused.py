"""Convolutions with what follows them in one pass: the same as several operations, wherever they run."""

import copy
import gc
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers.tiny_model import BACKBONES, build_tiny_model
from tfcseg.comparison.plan import count_flops
from tfcseg.model.ops import fused
from tfcseg.model.ops.fused import add_and_rectify, apply_linear, convolve

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "relu6": F.relu6, "gelu": F.gelu}
NEEDS_ONEDNN = pytest.mark.skipif(not fused._fusable_types(), reason="this PyTorch has no oneDNN")
CASES = [
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1, "groups": 8},
    {"kernel_size": 5, "padding": 2, "stride": 2, "groups": 8},
    {"kernel_size": 3, "stride": 2, "bias": False},
]


def picture(dtype=torch.float32, channels=8, batch=2):
    x = 4 * torch.randn(batch, channels, 12, 17, generator=torch.Generator().manual_seed(0))
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.fixture(params=["fused", "apart"])
def way(request, monkeypatch):
    """Both ways: as this machine computes it, and as one without oneDNN does."""
    if request.param == "apart":
        monkeypatch.setattr(fused, "_fusable_types", frozenset)
    return request.param


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_the_activation_is_applied_to_the_convolution(way, activation, case):
    conv = nn.Conv2d(8, 8, **case)
    x = picture()
    result = convolve(x, conv, activation)
    torch.testing.assert_close(result, ACTIVATIONS[activation](conv(x)), atol=1e-5, rtol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def test_padding_can_be_replaced(way):
    conv = nn.Conv2d(8, 8, 3, padding=1)
    x = picture()
    torch.testing.assert_close(convolve(x, conv, "relu6", (0, 0)), F.relu6(F.conv2d(x, conv.weight, conv.bias)))


@pytest.mark.parametrize("shape", [(2, 60, 8), (5, 8), (0, 8)])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_linear_layer_is_the_same(way, shape, bias):
    layer = nn.Linear(8, 5, bias=bias)
    x = torch.randn(*shape)
    torch.testing.assert_close(apply_linear(x, layer, "relu"), F.relu(layer(x)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(apply_linear(x, layer), layer(x), atol=1e-5, rtol=1e-5)
    turned = torch.randn(3, 8, 60).transpose(1, 2)
    torch.testing.assert_close(apply_linear(turned, layer), layer(turned), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_sum_is_rectified(way):
    conv = nn.Conv2d(8, 5, 1)
    x, rest = picture(), picture(channels=5)
    wanted = F.relu(conv(x) + rest)
    assert 0.2 < (wanted == 0).float().mean() < 0.8
    result = add_and_rectify(x, conv, rest)
    torch.testing.assert_close(result, wanted, atol=1e-5, rtol=1e-5)
    assert result.data_ptr() == rest.data_ptr()  # no map of its own


@torch.inference_mode()
def test_any_layout_gives_the_same():
    conv = nn.Conv2d(8, 5, 1)
    x, rest = picture().contiguous(), picture(channels=5).contiguous()
    wanted = F.relu(conv(x) + rest)
    torch.testing.assert_close(convolve(x, conv, "relu6"), F.relu6(conv(x)))
    torch.testing.assert_close(add_and_rectify(picture(), conv, rest), wanted)


def test_autocast_without_gradients_is_left_to_pytorch():
    layer, conv = nn.Linear(8, 16), nn.Conv2d(8, 16, 1).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = convolve(x, conv, "relu"), apply_linear(x.permute(0, 2, 3, 1).to(torch.bfloat16), layer, "relu")
        expected = F.relu(conv(x)), F.relu(layer(x.permute(0, 2, 3, 1)))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, other)


def test_gradients_are_those_of_the_operations_apart():
    conv = nn.Conv2d(8, 8, 1)
    x = picture().requires_grad_()
    convolve(x, conv, "gelu").sum().backward()
    own = conv.weight.grad.clone(), x.grad.clone()
    conv.zero_grad()
    x.grad = None
    F.gelu(conv(x)).sum().backward()
    torch.testing.assert_close(own, (conv.weight.grad, x.grad))


@NEEDS_ONEDNN
@pytest.mark.parametrize("backbone", BACKBONES)
@torch.inference_mode()
def test_networks_use_it_and_say_the_same(backbone, monkeypatch):
    network = copy.deepcopy(build_tiny_model(backbone).network).fold()
    image = torch.randn(2, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    fused_calls = []
    monkeypatch.setattr(fused, "is_for_onednn", partial(_noted, fused_calls, fused.is_for_onednn))
    logits = network.image(image)
    assert True in fused_calls
    flops = count_flops(lambda: network.image(image))
    monkeypatch.setattr(fused, "is_for_onednn", lambda x: False)
    torch.testing.assert_close(logits, network.image(image), atol=1e-4, rtol=1e-4)
    assert flops == count_flops(lambda: network.image(image))  # the counter knows the operations, too


def _noted(calls, function, x):
    calls.append(function(x))
    return calls[-1]


@NEEDS_ONEDNN
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_kept_weights_are_those_of_the_layer_at_any_time(dtype):
    """Their order for oneDNN is kept from call to call: it must follow what becomes of them."""
    if dtype not in fused._fusable_types():
        pytest.skip("this processor does not compute in it")
    with torch.inference_mode(False):
        conv = nn.Conv2d(8, 8, 1).to(dtype).requires_grad_(False)

    def agree():
        torch.testing.assert_close(convolve(picture(dtype), conv), conv(picture(dtype)))

    agree()
    first = fused._orders[conv].weights.copy()
    agree()
    assert [id(each) for each in fused._orders[conv].weights.values()] == [id(each) for each in first.values()]
    conv.weight.mul_(3)
    agree()
    with torch.inference_mode(False):
        conv.load_state_dict(nn.Conv2d(8, 8, 1).to(dtype).state_dict())
    agree()
    conv.weight = nn.Conv2d(8, 8, 1).to(dtype).weight  # an inference tensor, whose changes nobody counts
    agree()
    conv.weight.mul_(3)
    agree()


@NEEDS_ONEDNN
@torch.inference_mode()
def test_kept_weights_go_with_the_layer_and_are_few():
    with torch.inference_mode(False):
        conv = nn.Conv2d(8, 8, 1)
    for width in range(1, 4 * fused.KEPT_ORDERS):
        x = picture()[..., :width].contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(convolve(x, conv), conv(x))
        assert len(fused._orders[conv].weights) <= fused.KEPT_ORDERS
    gc.collect()  # layers that other tests left behind
    kept = len(fused._orders)
    del conv
    gc.collect()
    assert len(fused._orders) == kept - 1
