"""Small networks for tests. Every parameter and statistic is drawn, so that no part is trivially the identity."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfcseg.labels.label_sets import LabelSet, distinct_palette
from tfcseg.model.config import ModelConfig
from tfcseg.model.options import PAPER_OPTIONS
from tfcseg.model.tfc import TFCSegmenter, build_segmenter
from tfcseg.weights.loading import LoadedModel, save_model
from tfcseg.weights.model_card import IMAGENET_PREPROCESSING, ModelCard, Preprocessing

BACKBONES = ("efficientnet_lite0", "mit_b0")
NAMES = ("sky", "road", "tree", "person", "car")


def tiny_card(backbone: str = BACKBONES[0], *, keyframe_interval: int = 4) -> ModelCard:
    """Card of a network that is as small as its backbone allows, for inputs of 64 px."""
    config = ModelConfig(
        backbone,
        embed_dim=16,
        num_classes=len(NAMES),
        heads=2,
        points=2,
        ffn_dim=24,
        defaults=dataclasses.replace(PAPER_OPTIONS, keyframe_interval=keyframe_interval),
    )
    return ModelCard(
        name="tiny",
        config=config,
        labels=LabelSet("street", NAMES, distinct_palette(len(NAMES))),
        preprocessing=Preprocessing(64, IMAGENET_PREPROCESSING.mean, IMAGENET_PREPROCESSING.std),
        trained_on="nothing: random numbers",
        licence="Apache-2.0",
        measured={},
        created_with="tests/helpers/tiny_model.py",
        description="a network for tests",
    )


def build_tiny_network(backbone: str = BACKBONES[0], *, seed: int = 0) -> TFCSegmenter:
    """Random network of ``tiny_card`` in eval mode, not folded."""
    torch.manual_seed(seed)
    network = build_segmenter(tiny_card(backbone).config).eval()
    randomise(network)
    _balance_classes(network)
    return network


def build_tiny_model(
    backbone: str = BACKBONES[0], *, keyframe_interval: int = 4, fold: bool = True, seed: int = 0
) -> LoadedModel:
    """Random model on the CPU in float32, as `load_model` would return it."""
    network = build_tiny_network(backbone, seed=seed)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if fold:
        network.fold()
    card = tiny_card(backbone, keyframe_interval=keyframe_interval)
    return LoadedModel(network, card, torch.device("cpu"), torch.float32, "0" * 64, parameters)


def write_tiny_model(path: Path, backbone: str = BACKBONES[0], *, seed: int = 0) -> Path:
    """Weights file of `build_tiny_network` at ``path``; returns ``path``."""
    save_model(path, build_tiny_network(backbone, seed=seed), tiny_card(backbone))
    return path


@torch.no_grad()
def randomise(network: nn.Module) -> None:
    """Draw all parameters and statistics anew, at scales that neither let activations die nor explode."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            # He's factor of 2 makes up for what the ReLU after most layers takes away.
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.2)


@torch.no_grad()
def _balance_classes(network: TFCSegmenter) -> None:
    """Give all classes the same mean and deviation on some scenes: none of them wins everywhere."""
    scenes = torch.cat([moving_clip(1, (32, 64), seed=seed) for seed in range(6)])
    logits = network.image(scenes)
    classifier = network.decode_head.classifier
    deviation, mean = torch.std_mean(logits, dim=(0, 2, 3))
    classifier.weight /= deviation[:, None, None, None]
    classifier.bias.sub_(mean).div_(deviation)


def moving_clip(frames: int, size: tuple[int, int] = (64, 96), *, seed: int = 0) -> Tensor:
    """Normalised images (frames, 3, H, W) of soft blobs; the right half moves by 3 px a frame, the left one stands."""
    height, width = size
    whole = width + 3 * frames
    coarse = torch.randn(1, 3, height // 8, whole // 8, generator=torch.Generator().manual_seed(seed))
    scene = F.interpolate(coarse, size=(height, whole), mode="bicubic")[0]
    clip = scene[None, :, :, :width].repeat(frames, 1, 1, 1)
    for frame in range(frames):
        clip[frame, :, :, width // 2 :] = scene[:, :, width // 2 + 3 * frame : width + 3 * frame]
    return clip


def moving_images(frames: int, size: tuple[int, int] = (45, 70), *, seed: int = 0) -> list[np.ndarray]:
    """``moving_clip`` as (H, W, 3) uint8 pictures."""
    pixels = (moving_clip(frames, size, seed=seed) * 50 + 120).clamp(0, 255).byte().permute(0, 2, 3, 1)
    return list(np.ascontiguousarray(pixels.numpy()))


def halving_threshold(similarity: Tensor) -> float:
    """Threshold below about half of the similarities, and far from all: rounding cannot move a point across it."""
    values = similarity.flatten().sort().values
    middle = values[len(values) // 4 : 3 * len(values) // 4]
    gap = int(middle.diff().argmax())
    return float(middle[gap] + middle[gap + 1]) / 2
