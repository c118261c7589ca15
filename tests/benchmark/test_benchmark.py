"""The benchmark measures what it says: fair turns, the same weights for all. Never how fast."""

import importlib.util
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.media import write_video
from tests.helpers.tiny_model import build_tiny_network, moving_clip, moving_images, tiny_card, write_tiny_model
from tfcseg.benchmark.measure import (
    IMAGE,
    PLAIN,
    TFC,
    _speeds,
    alternate,
    job_for,
    measure_model_only,
    open_contest,
    peak_mib,
    run_alone,
    run_plain,
    spread,
)
from tfcseg.benchmark.plain import build_plain, segformer_tensors, to_network
from tfcseg.benchmark.random_model import BOUNDARY_SHARE, boundary_share, write_random_model
from tfcseg.benchmark.request import Request
from tfcseg.comparison.plan import count_gflops
from tfcseg.errors import TfcsegError, UsageError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.network_input import network_size
from tfcseg.inference.options import checked_options
from tfcseg.inference.segment import segment
from tfcseg.media.masks import read_mask
from tfcseg.media.reader import read_frames
from tfcseg.model.options import InferenceOptions
from tfcseg.weights.convert import our_name
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, load_model

CPU = torch.device("cpu")
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


def unfolded(backbone):
    network = build_tiny_network(backbone)
    return LoadedModel(network, tiny_card(backbone), CPU, torch.float32, "0" * 64, 0)


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_images(8, (64, 96)))


@pytest.fixture
def tiny_file(tmp_path):
    return write_tiny_model(tmp_path / "tiny.safetensors", "mit_b0")


# Turns


def test_contenders_take_turns_there_and_back():
    calls = []
    tasks = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "abc"}
    steps = []
    samples = alternate(tasks, 3, lambda done, total: steps.append((done, total)))
    assert "".join(calls) == "abc" + "cba" + "abc" + "cba"
    assert samples == {"a": [6, 7, 12], "b": [5, 8, 11], "c": [4, 9, 10]}, "the first round warms up"
    assert steps == [(done, 12) for done in range(1, 13)]


def test_spread_is_median_and_range():
    found = spread([5.0, 1.0, 2.0, 100.0])
    assert (found.median, found.low, found.high, found.samples) == (3.5, 1.0, 100.0, 4)


def test_time_is_per_frame():
    found = _speeds(1, "model_only", {"sleep": lambda: time.sleep(0.02) or 4}, lambda done, total: None)
    assert found["model_only"]["sleep"].ms_per_frame.median >= 5


# Clips


def test_runs_end_after_the_frames_asked_for(tiny_file, clip_file):
    for frames in (1, 3, 8):
        request = Request(model=str(tiny_file), video=clip_file, frames=5, clip_frames=frames, plain_frames=2)
        with open_contest(request) as contest:
            assert (len(contest.images), contest.size) == (5, (64, 96))
            assert len(list(read_frames(clip_file, end_s=contest.end_s(TFC)))) == frames
            assert len(list(read_frames(clip_file, end_s=contest.end_s(PLAIN)))) == min(2, frames)


# Contender (a)


@needs_transformers
def test_plain_segformer_has_our_weights():
    ours = unfolded("mit_b0")
    plain = build_plain(ours, 64, CPU)
    image = moving_clip(2, (64, 96))
    with torch.inference_mode():
        theirs = plain.network(image).logits
        expected = ours.network.image(image)
    assert plain.has_same_weights
    assert expected.std() > 0.5
    torch.testing.assert_close(theirs, expected, rtol=1e-3, atol=1e-3)


@needs_transformers
def test_every_number_of_a_segformer_arrives_once():
    ours = unfolded("mit_b0").network.state_dict()
    theirs = build_plain(unfolded("mit_b0"), 64, CPU).network.state_dict()
    shared = {name: tensor for name, tensor in ours.items() if not name.startswith("update.")}
    assert sum(map(torch.numel, theirs.values())) == sum(map(torch.numel, shared.values()))
    assert {our_name(name).replace(".key.", ".key_value.").replace(".value.", ".key_value.") for name in theirs} == (
        set(shared)
    )


def test_names_of_an_unknown_version_are_an_error():
    with pytest.raises(TfcsegError, match=r"'decode_head\.new\.weight'"):
        segformer_tensors({}, ["decode_head.new.weight"])


@needs_transformers
def test_labels_of_plain_and_image_agree(tmp_path):
    images = moving_images(3, (90, 140))
    path = write_random_model(tmp_path / "random.safetensors", "mit_b0", 9, images[:1])
    plain = build_plain(load_model(path, device="cpu", fold=False), 96, CPU)
    model = load_model(path, device="cpu", precision="fp32")
    ours = [frame.labels for frame in segment(images, model, mode="image", size=96)]
    theirs = [plain.labels(image) for image in images]
    assert np.unique(ours).size > 2
    assert np.mean(np.equal(ours, theirs)) >= 0.999


@needs_transformers
def test_a_segformer_stands_in_for_another_backbone():
    plain = build_plain(unfolded("efficientnet_lite0"), 64, CPU)
    image = moving_images(1, (64, 96))[0]
    assert not plain.has_same_weights
    assert plain.labels(image).shape == (64, 96)
    assert plain.network.config.num_labels == len(unfolded("efficientnet_lite0").labels)


@pytest.mark.parametrize("size", [32, 64, 160])
def test_plain_preprocessing_is_ours(size):
    images = moving_images(2, (45, 70))
    pixels = to_network(images, tiny_card().preprocessing, size)
    height, width = network_size((45, 70), size)
    assert pixels.shape == (2, 3, height, width)
    assert pixels.is_contiguous()
    model = unfolded("mit_b0")
    ours = IntervalNetwork(model, checked_options(model, size=size)).to_input(images)
    torch.testing.assert_close(pixels, ours)


@needs_transformers
def test_plain_writes_the_same_kinds_of_files(clip_file, tmp_path):
    model = unfolded("mit_b0")
    plain = build_plain(model, 64, CPU)
    assert run_plain(plain, model.labels, clip_file, 0.1, tmp_path) == 3  # of 25 frames per second
    assert len(list(read_frames(tmp_path / "overlay.mp4"))) == 3
    assert np.array_equal(
        read_mask(tmp_path / "masks" / "00000000.png"), plain.labels(next(read_frames(clip_file)).image)
    )


# Random weights


@pytest.mark.parametrize("backbone", ["mit_b0", "efficientnet_lite0"])
def test_random_weights_find_boundaries_as_trained_ones_do(backbone, tmp_path):
    images = moving_images(1, (160, 224))
    files = [write_random_model(tmp_path / f"{name}.safetensors", backbone, 20, images) for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
    model = load_model(files[0], device="cpu", precision="fp32")
    assert len(model.labels) == 20
    with torch.inference_mode():
        labels = model.network.image(to_network(images, model.card.preprocessing)).argmax(dim=1)
    assert BOUNDARY_SHARE / 2 < boundary_share(labels) < BOUNDARY_SHARE * 1.5


def test_boundary_cells_are_those_beside_another_class():
    labels = torch.zeros(1, 5, 5, dtype=torch.long)
    assert boundary_share(labels) == 0
    labels[0, 2, 2] = 1
    assert boundary_share(labels) == 4 / 16


def test_random_weights_that_cannot_be(tmp_path):
    with pytest.raises(UsageError, match=r"no backbone 'vit_b'; there are .*mit_b0"):
        write_random_model(tmp_path / "x.safetensors", "vit_b", 10, moving_images(1))


# Parts


@needs_transformers
def test_model_only_measures_all_contenders(tiny_file, clip_file):
    device = DeviceOptions(precision="fp32")
    request = Request(model=str(tiny_file), video=clip_file, frames=8, plain_frames=2, rounds=2, device=device)
    with open_contest(request) as contest:
        found = measure_model_only(contest, lambda done, total: None)
    assert list(found["model_only"]) == [PLAIN, IMAGE, TFC]
    assert all(speed.ms_per_frame.samples == 2 for speed in found["model_only"].values())
    assert found["agreement"]["plain|image"] >= 99.9
    assert 0 < found["agreement"]["image|tfc"] <= 100
    assert 0 < found["updated_fraction"] < 100


def test_interval_of_one_leaves_tfc_out(tiny_file, clip_file):
    request = Request(
        model=str(tiny_file),
        video=clip_file,
        frames=2,
        plain_frames=1,
        rounds=1,
        inference=InferenceOptions(keyframe_interval=1),
    )
    with open_contest(request) as contest:
        assert TFC not in measure_model_only(contest, lambda done, total: None)["model_only"]


def test_what_was_written_for_the_measurement_is_removed(clip_file):
    with open_contest(Request(backbone="mit_b0", video=clip_file, frames=2, clip_frames=4)) as contest:
        folder = contest.folder
        assert Path(contest.weights).parent == folder
    assert not folder.exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "rounds 0 is less than 1"),
        ({"plain_frames": 0}, "plain frames 0 is less than 1"),
        ({"backbone": "mit_b0", "classes": 255}, "classes 255 is not between 2 and 254"),
        ({"device": DeviceOptions("abacus")}, "no device 'abacus'"),
        ({"device": DeviceOptions(precision="int3")}, "no precision 'int3'"),
    ],
)
def test_senseless_requests(wrong, message, tiny_file, clip_file):
    with (
        pytest.raises(UsageError, match=message),
        open_contest(Request(model=str(tiny_file), video=clip_file, **{"frames": 4, **wrong})),
    ):
        pass


def test_without_the_demo_clip_a_video_must_be_named(monkeypatch, tmp_path):
    monkeypatch.setattr("tfcseg.benchmark.request.DEMO", tmp_path / "demo.mp4")
    with pytest.raises(UsageError, match="name a video to measure"):
        Request(video=tmp_path / "demo.mp4").check()


def test_attention_is_counted():
    model = unfolded("mit_b0")
    images = moving_images(1, (64, 64))
    counted = count_gflops(model, checked_options(model, mode="image"), [images])["gflops_per_frame"]
    queries, heads = (256, 64, 16, 4), (1, 2, 5, 8)  # of the four levels at 64×64; each sees 4 keys
    attention = sum(2 * 2 * 2 * n * 4 * (32 * m) for n, m in zip(queries, heads, strict=True))  # 2 blocks, scores, sums
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        by_products = count_gflops(model, checked_options(model, mode="image"), [images])["gflops_per_frame"]
    assert counted == pytest.approx(by_products, rel=1e-6)
    assert counted * 1e9 > attention


# Processes


def test_a_job_is_done_as_in_a_process_of_its_own(tiny_file, clip_file):
    with open_contest(Request(model=str(tiny_file), video=clip_file, frames=4, clip_frames=6)) as contest:
        memory = job_for(contest, TFC)()
    assert memory.frames == 6
    assert 0 < memory.before_mib <= memory.peak_mib <= peak_mib() + 1
    assert memory.gpu_peak_mib is None


def test_a_process_that_fails_says_why(tiny_file, clip_file):
    with open_contest(Request(model=str(tiny_file), video=clip_file, frames=4)) as contest:
        job = partial(job_for(contest, IMAGE), source=clip_file.with_name("gone.mp4"))
    with pytest.raises(TfcsegError, match=r"measures image failed: .*gone\.mp4") as raised:
        run_alone(IMAGE, job)
    assert "\n" not in str(raised.value)
