"""MOSAIC's encoder beside the published network written layer by layer."""

import pytest
import torch

from tests.helpers.mosaic_reference import MosaicReference
from tfcseg.model.backbones.inverted_residual import fold_layers
from tfcseg.model.backbones.mosaic import Mosaic
from tfcseg.training.loop import use_float32_depthwise
from tfcseg.training.teachers import FloatLayer, layer_name


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    network = Mosaic().eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:  # keep values alive through fifty layers
            torch.nn.init.kaiming_normal_(parameter)
    return network


def reference(backbone):
    state = backbone.state_dict()
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    unlimited = (-torch.inf, torch.inf)
    return MosaicReference(
        {layer_name(name): FloatLayer(state[f"{name}.weight"], state[f"{name}.bias"], unlimited) for name in names}
    )


@pytest.mark.parametrize("has_gradient", [True, False])
def test_levels_are_the_published_networks(backbone, has_gradient):
    """Also strip by strip, as they are computed without gradients."""
    image = torch.randn(2, 3, 256, 256).contiguous(memory_format=torch.channels_last)
    with torch.set_grad_enabled(has_gradient):
        x1, x2 = backbone.encode_low(image)
        x3, x4 = backbone.encode_high(x2)
    found = reference(backbone).features(image)
    assert [tuple(x.shape[1:]) for x in (x1, x2, x3, x4)] == [
        (channels, 256 // stride, 256 // stride)
        for channels, stride in zip(backbone.channels, (4, 8, 16, 16), strict=True)
    ]
    for level, name in ((x1, "block 1"), (x2, "block 5"), (x3, "block 11"), (x4[:, :448], "last")):
        torch.testing.assert_close(level, found[name], rtol=1e-4, atol=1e-4 * float(found[name].abs().max()))


def test_folding_changes_nothing(backbone):
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        before = backbone.encode_high(backbone.encode_low(image)[1])
    folded = Mosaic().eval()
    folded.load_state_dict(backbone.state_dict())
    fold_layers(folded)
    with torch.inference_mode():
        after = folded.encode_high(folded.encode_low(image)[1])
    for mine, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_context_of_an_even_map_is_even(backbone):
    """Windows that are cut off at the edges average what there is of them."""
    context = backbone.context(torch.ones(1, 448, 7, 5))
    assert context.shape == (1, 128, 7, 5)
    assert torch.isfinite(context).all()


def test_a_training_step_in_bfloat16_has_nearly_the_gradients_of_float32(backbone):
    image = torch.randn(1, 3, 64, 64)

    def gradient(precision):
        network = Mosaic()
        network.load_state_dict(backbone.state_dict())
        use_float32_depthwise(network)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            network.encode_low(image)[1].float().square().mean().backward()
        return network.blocks[2].depthwise.conv.weight.grad

    exact = gradient("fp32")
    assert (gradient("bf16") - exact).norm() < 0.05 * exact.norm()
