"""Parts of a comparison: moments, panels, FLOPs and files."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers.tiny_model import build_tiny_model, moving_images
from tfcseg.comparison.pictures import MAX_HEIGHT_PX, MAX_WIDTH_PX, RowPainter
from tfcseg.comparison.plan import Plan, count_gflops, known_folders
from tfcseg.drawing.render import covered, mark_difference
from tfcseg.errors import OutputError
from tfcseg.files import claimed_files
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.labels.label_sets import ADE31
from tfcseg.model.ops import fused
from tfcseg.model.options import InferenceOptions
from tfcseg.report.moments import greatest_moments


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 6), st.integers(1, 12))
def test_moments_are_the_greatest_that_lie_apart(values, count, apart):
    times_s = [index / 10 for index in range(len(values))]
    found = greatest_moments(times_s, values, count=count, apart_s=apart / 10)
    assert found == sorted(found)
    assert len(found) <= count
    assert all(other - one >= apart for one, other in itertools.pairwise(found))
    assert all(values[index] > 0 for index in found)
    if max(values) > 0:
        assert values.index(max(values)) in found
    if len(found) < count:  # then everything else lies too close to something at least as great
        for index, value in enumerate(values):
            assert value == 0 or any(abs(index - other) < apart and values[other] >= value for other in found)


@pytest.mark.parametrize("size", [(45, 71), (480, 853), (2160, 3840), (3840, 2160), (1080, 1920)])
def test_rows_keep_to_what_players_can_show(size):
    painter = RowPainter(ADE31, size, ["image", "tfc"], has_difference=True)
    height, width = painter.row_size
    assert height <= MAX_HEIGHT_PX
    assert width <= MAX_WIDTH_PX
    panel_width = width / 4
    assert panel_width / height == pytest.approx(size[1] / size[0], rel=0.05)
    labels = np.zeros(size, np.uint8)
    assert painter.draw(np.zeros((*size, 3), np.uint8), [labels, labels]).shape == (height, width, 3)


def test_thin_differences_stay_visible_when_the_picture_is_smaller():
    is_different = np.zeros((400, 400), bool)
    is_different[:, 100] = True
    marked = mark_difference(np.zeros((100, 100, 3), np.uint8), covered(is_different, (100, 100)))
    assert marked[:, 25, 0].min() > 100
    assert marked[:, 26:].max() == 0


@pytest.fixture(scope="module")
def model():
    return build_tiny_model()


def test_flops_of_a_keyframe_are_those_of_its_convolutions(model, monkeypatch):
    counted = []

    def count(module, inputs, output):
        fan_in = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        counted.append(2 * fan_in * output.numel())

    images = moving_images(1)
    options = checked_options(model, mode="image")
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr(fused, "is_for_onednn", lambda x: False)  # fused, layers are not called but their weights used
        hooks = [
            layer.register_forward_hook(count) for layer in model.network.modules() if isinstance(layer, nn.Conv2d)
        ]
        IntervalNetwork(model, options).run(images)
        for hook in hooks:
            hook.remove()
    gflops = count_gflops(model, options, [images])
    assert gflops["gflops_keyframe"] * 1e9 == pytest.approx(sum(counted), rel=1e-9)
    assert gflops["gflops_per_frame"] == gflops["gflops_keyframe"]
    assert gflops["gflops_non_keyframe"] is None


@pytest.mark.parametrize("sides", ["one", "both"])
def test_flops_of_videos_of_several_sizes_are_the_mean(model, sides):
    """Each sample's keyframe is counted at its own size: the others had a part of it, or less than nothing."""
    clips = [moving_images(8), [image[:40, :40] for image in moving_images(8)]]
    large, small, both = (
        count_gflops(model, checked_options(model, sides=sides), samples) for samples in (clips[:1], clips[1:], clips)
    )
    assert large["gflops_keyframe"] > small["gflops_keyframe"] > small["gflops_non_keyframe"] > 0
    for name, value in both.items():
        assert value == pytest.approx((large[name] + small[name]) / 2)


def test_flops_grow_with_the_points_that_are_updated(model):
    images = moving_images(4)
    none, some, all_points = (
        count_gflops(model, checked_options(model, mode=mode, threshold=threshold), [images])["gflops_non_keyframe"]
        for mode, threshold in (("reuse", None), ("tfc", 0.5), ("tfc", 1.0))
    )
    assert none < some < all_points


def test_the_papers_correlation_is_shown_beside_the_models(model):
    config = dataclasses.replace(
        model.card.config, defaults=dataclasses.replace(model.card.config.defaults, correlation="aligned")
    )
    aligned = dataclasses.replace(model, card=dataclasses.replace(model.card, config=config))
    plan = Plan()
    assert list(plan.runs(aligned)) == ["image", "reuse", "tfc-paper", "tfc"]
    found = [(mode, options.mode, options.correlation) for mode, options in plan.runs(aligned).items()]
    assert found[2:] == [("tfc-paper", "tfc", "paper"), ("tfc", "tfc", "aligned")]
    assert plan.to_json(plan.runs(aligned))["correlation"] == "aligned"


@pytest.mark.parametrize(
    ("plan", "wanted"),
    [
        (Plan(), ("image", "reuse", "tfc")),  # the model's is the paper's
        (Plan(inference=InferenceOptions(correlation="aligned")), ("image", "reuse", "tfc-paper", "tfc")),
        (Plan(["tfc-paper", "tfc-aligned"]), ("tfc-paper", "tfc-aligned")),
        (Plan(["tfc", "reuse-aligned", "reuse"]), ("reuse-aligned", "reuse", "tfc")),
        (Plan(["image", "tfc-paper", "tfc"], baseline="masks"), ("tfc",)),
    ],
)
def test_nothing_is_run_twice(model, plan, wanted):
    assert tuple(plan.runs(model)) == wanted


@pytest.mark.parametrize("options", [{"sides": "both"}, {"sides": "both", "keyframes": "adaptive"}])
def test_both_sides_are_for_the_modes_that_can_have_them(model, options):
    plan = Plan(["image", "reuse", "tfc-paper", "tfc"], inference=InferenceOptions(**options))
    used = plan.runs(model)
    assert [mode for mode in used if used[mode].sides == "both"] == ["tfc"]
    assert used["tfc"].keyframes == options.get("keyframes", "fixed")
    assert {used[mode].keyframes for mode in ("image", "reuse", "tfc-paper")} == {"fixed"}


def test_folders_of_all_modes_are_known_again(tmp_path):
    for name in ("image", "tfc-paper", "reuse-aligned", "baseline", "tfc-other", "notes"):
        (tmp_path / name).mkdir()
    assert known_folders(tmp_path) == ["baseline", "image", "reuse-aligned", "tfc-paper"]


def test_flops_are_those_of_a_whole_interval_even_if_the_sample_is_shorter(model):
    options = checked_options(model, mode="reuse", keyframe_interval=10)
    gflops = count_gflops(model, options, [moving_images(3)])
    whole = (gflops["gflops_keyframe"] + 9 * gflops["gflops_non_keyframe"]) / 10
    assert gflops["gflops_per_frame"] == pytest.approx(whole)


def test_claimed_files_are_made_room_for_only_if_asked(tmp_path):
    (tmp_path / "a.json").write_text("old")
    (tmp_path / "other.txt").write_text("not ours")
    with pytest.raises(OutputError, match=r"a\.json"), claimed_files(tmp_path, ["a.json", "b.json"]):
        pass
    assert (tmp_path / "a.json").read_text() == "old"
    with claimed_files(tmp_path, ["a.json", "b.json"], overwrite=True) as clear:
        assert (tmp_path / "a.json").read_text() == "old"
        clear()
        assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_a_folder_in_the_place_of_a_file_is_told_before_any_work(tmp_path):
    (tmp_path / "a.json").mkdir()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"a\.json' is a folder"):
            claimed_files(tmp_path, ["a.json"], overwrite=overwrite).__enter__()


def test_a_folder_that_was_made_in_vain_goes_again(tmp_path):
    for made_before in (False, True):
        folder = tmp_path / str(made_before)
        if made_before:
            folder.mkdir()
        with pytest.raises(ZeroDivisionError), claimed_files(folder, ["a.json"]):
            len(list(folder.iterdir())) / 0
        assert folder.exists() == made_before
