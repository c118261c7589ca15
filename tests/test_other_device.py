"""On a device that is not the CPU, no step mixes its tensors with the CPU's, and labels are the CPU's.

A GPU in place of the CPU: most machines that run the tests have none.
"""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torch.utils import backend_registration

import tfcseg
from tests.helpers.media import write_video
from tests.helpers.tiny_model import build_tiny_model, moving_images
from tests.helpers.tiny_training import build_trainer, run
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.inference.segment import segment_frames
from tfcseg.media.frames import Frame
from tfcseg.weights.loading import load_model

if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this PyTorch knows no devices written in Python", allow_module_level=True)

from tests.helpers.other_device import DEVICE, moved, other_device  # needs what is asked for above

WAYS = {
    "image": {"mode": "image"},
    "reuse": {"mode": "reuse", "sides": "one", "keyframes": "fixed"},
    "one side": {"mode": "tfc", "sides": "one", "keyframes": "fixed", "threshold": 0.9},
    "one side, aligned": {"mode": "tfc", "sides": "one", "keyframes": "fixed", "correlation": "aligned"},
    "past": {"mode": "tfc", "sides": "past"},
    "both": {"mode": "tfc", "sides": "both"},
    "both, adaptive": {"mode": "tfc", "sides": "both", "keyframes": "adaptive"},
    "low latency": {"mode": "tfc", "latency": "low"},
}


def frames_at(images):
    return (Frame(index, index / 25, image, is_held=False) for index, image in enumerate(images))


def labels_of(model, images, at_once, **options):
    network = IntervalNetwork(model, checked_options(model, **options))
    network.chunk = at_once
    return [frame.labels for frame in segment_frames(frames_at(images), network)]


def test_the_device_refuses_tensors_of_the_cpu():
    with other_device(), pytest.raises(RuntimeError, match="on other:0 and on the CPU"):
        torch.ones(3, device=DEVICE) + torch.ones(3)
    with other_device(), pytest.raises(RuntimeError, match="numpy"):
        torch.ones(3, device=DEVICE).numpy()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mit_b0"])
def test_tiny_networks(backbone, way):
    model, images = build_tiny_model(backbone), moving_images(9, (64, 64))
    wanted = labels_of(model, images, 1, **WAYS[way])
    with other_device():
        found = labels_of(moved(model), images, 3, **WAYS[way])
    assert np.mean(np.stack(found) == np.stack(wanted)) > 0.999


@pytest.mark.parametrize("way", ["image", "both, adaptive", "past", "low latency"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_default_model(way, precision):
    images = moving_images(9, (128, 128))
    options = {**WAYS[way], "size": 128}
    model = load_model(precision="fp32")
    wanted = labels_of(model, images, 1, **options)
    if precision == "fp16":
        model = dataclasses.replace(model, network=model.network.half(), precision=torch.float16)
    with other_device():
        found = labels_of(moved(model), images, 4, **options)
    assert np.mean(np.stack(found) == np.stack(wanted)) > (0.999 if precision == "fp32" else 0.97)


def test_runs_and_steadied_masks(tmp_path):
    video = write_video(tmp_path / "clip.mp4", moving_images(12, (64, 96)))
    model = build_tiny_model()
    masks = {}
    for where in ("cpu", "other"):
        with other_device():
            used = model if where == "cpu" else moved(model)
            tfcseg.run(video, tmp_path / where, used)
            tfcseg.steady(video, tmp_path / "cpu" / "masks", tmp_path / f"{where} steadied", used)
        for name in (where, f"{where} steadied"):
            masks[name] = np.stack([cv2.imread(str(path)) for path in sorted((tmp_path / name / "masks").iterdir())])
    assert np.mean(masks["cpu"] == masks["other"]) > 0.999
    assert np.mean(masks["cpu steadied"] == masks["other steadied"]) > 0.999


@pytest.mark.parametrize("stage", ["image", "tfc", "attention"])
def test_training(stage, tmp_path):
    scores = []
    for device in ("cpu", str(DEVICE)):
        with other_device():
            trainer, _ = build_trainer(tmp_path / device[:3], stage=stage, steps=2, drops=False, device=device)
            scores.append(run(trainer))
    assert scores[1] == pytest.approx(scores[0], abs=0.5)
