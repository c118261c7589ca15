"""Random weights, to measure speed without training.

Two numbers depend on the weights: cells on boundaries between classes, which the cost of label maps depends on, and
points that TFC updates. Classifier biases are chosen to give as many boundaries as a trained network; ``--threshold``
changes the share of updated points.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from tfcseg.benchmark.plain import to_network
from tfcseg.errors import UsageError
from tfcseg.labels.label_sets import LabelSet, distinct_palette
from tfcseg.media.frames import Image
from tfcseg.model.config import ModelConfig
from tfcseg.model.tfc import BACKBONES, TFCSegmenter, build_segmenter
from tfcseg.weights.loading import save_model
from tfcseg.weights.model_card import IMAGENET_PREPROCESSING, ModelCard

BOUNDARY_SHARE = 0.08  # share of the cells at stride 4 next to another class; the default model's on the demo clip

_SEED = 0
_WIDTHS = {"mosaic": 128, "efficientnet_lite0": 128}
_MIT_WIDTH = 256
_BISECTIONS = 14


def write_random_model(path: Path, backbone: str, classes: int, images: Sequence[Image]) -> Path:
    """Write random weights of ``backbone``, with the default width of `tfcseg train`, to ``path``; returns the path.

    images: (H, W, 3), all of one size. They determine the statistics of norms and the biases of the classifier, without
    which a deep random network predicts one class everywhere. The same images give the same weights. Raises UsageError
    for an unknown backbone.
    """
    if backbone not in BACKBONES:
        raise UsageError(f"no backbone {backbone!r}; there are {', '.join(BACKBONES)}")
    config = ModelConfig(backbone, _WIDTHS.get(backbone, _MIT_WIDTH), classes)
    names = tuple(f"class {index}" for index in range(classes))
    card = ModelCard(
        name=f"random-{backbone}",
        config=config,
        labels=LabelSet("random", names, distinct_palette(classes)),
        preprocessing=IMAGENET_PREPROCESSING,
        trained_on="nothing: random numbers",
        licence="none needed",
        measured={},
        created_with="tfcseg bench",
        description="random weights, for measuring speed",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = build_segmenter(config).eval()
        _fit(network, to_network(images, card.preprocessing))
    save_model(path, network, card)
    return path


@torch.no_grad()
def _fit(network: TFCSegmenter, images: Tensor) -> None:
    """Set the norms' statistics from ``images`` (B, 3, H, W), and biases for ``BOUNDARY_SHARE``."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean of all batches, here one
        norm.train().reset_running_stats()
    network.image(images)
    for norm in norms:
        norm.eval()
    bias = cast(Tensor, network.decode_head.classifier.bias)
    logits = network.image(images)
    drawn = torch.randn(len(bias))
    low, high = 0.0, 4 * float(logits.max() - logits.min())
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        shares = boundary_share((logits + middle * drawn[:, None, None]).argmax(dim=1))
        low, high = (middle, high) if shares > BOUNDARY_SHARE else (low, middle)
    bias.add_(high * drawn)


def boundary_share(labels: Tensor) -> float:
    """Share of the cells of (B, h, w) whose right, lower or lower right neighbour has another class."""
    here = labels[:, :-1, :-1]
    is_mixed = (here != labels[:, 1:, :-1]) | (here != labels[:, :-1, 1:]) | (here != labels[:, 1:, 1:])
    return float(is_mixed.float().mean())
