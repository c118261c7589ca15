"""Wide layers in strips are the same layers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tfcseg.model.backbones.efficientnet_lite import EfficientNetLite0
from tfcseg.model.backbones.inverted_residual import ConvNorm, fold_layers
from tfcseg.model.backbones.mix_transformer import build_mix_transformer
from tfcseg.model.ops import strips as strips_module
from tfcseg.model.ops.strips import in_strips, strip_count, strips


@given(
    height=st.integers(1, 40),
    count=st.integers(1, 9),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
)
def test_strips_cover_every_row_once_and_bring_their_neighbours(height, count, kernel, stride):
    height *= stride
    before = (kernel - stride) // 2 if kernel > stride else 0
    found = strips(height, min(count, height // stride), kernel=kernel, stride=stride, before=before)
    assert [row for strip in found for row in range(strip.first, strip.last)] == list(range(height // stride))
    for strip in found:
        wanted = range(strip.first * stride - before, (strip.last - 1) * stride - before + kernel)
        assert list(range(strip.top, strip.bottom)) == [row for row in wanted if 0 <= row < height]
        assert strip.padding == (sum(row < 0 for row in wanted), sum(row >= height for row in wanted))


def test_strips_are_joined_in_order_for_every_picture():
    x = torch.arange(2 * 3 * 7 * 4.0).view(2, 3, 7, 4)
    joined = in_strips(x, strips(7, 3), lambda part, rows: 2 * part)
    assert torch.equal(joined, 2 * x)


def test_wide_maps_are_cut_and_small_ones_are_not():
    with torch.no_grad():
        assert strip_count(torch.zeros(1, 16, 16, 16), 96, 16) == 1
        wide = strip_count(torch.zeros(1, 16, 240, 320), 960, 240)
        assert wide > 4
        assert strip_count(torch.zeros(8, 16, 240, 320), 960, 240) == wide  # pictures are cut one by one
        assert strip_count(torch.zeros(1, 16, 240, 320), 960, 3) == 3
    assert strip_count(torch.zeros(1, 16, 240, 320), 960, 240) == 1  # gradients need whole maps


@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "b0", "b2"])
def test_backbones_in_strips_give_the_same_features(name, is_folded, monkeypatch):
    torch.manual_seed(0)
    network = EfficientNetLite0() if name == "efficientnet_lite0" else build_mix_transformer(name)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # biases that padding must not meet
            torch.nn.init.normal_(module.bias)
    network.eval().double().to(memory_format=torch.channels_last)
    if is_folded:
        fold_layers(network)
    image = torch.randn(2, 3, 96, 160).double()
    with torch.inference_mode():
        wanted = network.encode_low(image)
        cuts = []
        counting = strips_module.in_strips

        def count(x, rows, layers):
            cuts.append(len(rows))
            return counting(x, rows, layers)

        for module in ("inverted_residual", "mix_transformer"):
            monkeypatch.setattr(f"tfcseg.model.backbones.{module}.in_strips", count)
        monkeypatch.setattr(strips_module, "STRIP_BYTES", 20_000)
        found = network.encode_low(image)
    assert len(cuts) >= 4
    assert max(cuts) >= 4
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@torch.no_grad()
def test_filters_of_folded_strips_pad_columns_themselves(kernel, stride, monkeypatch):
    """To pad what is widest takes a copy of it, which lasts as long as the filter."""
    torch.manual_seed(0)
    layer = ConvNorm(6, 6, kernel, stride=stride, groups=6).eval()
    torch.nn.init.normal_(layer.norm.bias)
    layer.fold()
    x = torch.randn(1, 6, 12, 14)
    pad = F.pad
    padded_columns = []

    def watched(values, amounts):
        padded_columns.append(amounts[:2])
        return pad(values, amounts)

    monkeypatch.setattr(F, "pad", watched)
    for rows in strips(12, 3, kernel=kernel, stride=stride, before=layer.before):
        found = layer.activated_strip(x[:, :, rows.top : rows.bottom], rows)
        whole = pad(x, (layer.before, layer.after, layer.before, layer.after))
        wanted = F.relu6(F.conv2d(whole, layer.conv.weight, layer.conv.bias, stride, groups=6))
        torch.testing.assert_close(found, wanted[:, :, rows.first : rows.last])
    assert set(padded_columns) <= {(0, 0)}
