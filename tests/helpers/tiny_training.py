"""Training runs small enough for tests: coloured pictures whose colours are the classes, on a tiny network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tests.helpers.tiny_model import BACKBONES, NAMES, build_tiny_network, tiny_card
from tfcseg.model.backbones.mix_transformer import DropPath
from tfcseg.training.datasets import Sample
from tfcseg.training.loop import Trainer
from tfcseg.training.objective import WeightedSum
from tfcseg.training.recipes import TrainOptions

SIDE = 64
COLOURS = np.array([(230, 30, 30), (30, 200, 40), (40, 60, 220), (220, 210, 60), (120, 120, 120)], np.uint8)


class ColouredClips(Dataset[Sample]):
    """``count`` clips of ``frames`` frames: blocks of colours that move, with soft or hard labels."""

    def __init__(self, count: int, *, frames: int = 1, hard: bool = False, first: int = 0) -> None:
        self.count, self.frames, self.hard, self.first = count, frames, hard, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Sample:
        rng = np.random.default_rng((17, self.first + number))
        blocks = rng.integers(0, len(NAMES), (4, 8))
        wide = np.kron(blocks, np.ones((SIDE // 4, SIDE // 4), np.int64))  # (SIDE, 2·SIDE)
        scenes = np.stack([wide[:, 4 * t : 4 * t + SIDE] for t in range(self.frames)])
        noise = rng.normal(0, 12, (self.frames, SIDE, SIDE, 3))
        images = np.clip(COLOURS[scenes] + noise, 0, 255).astype(np.uint8)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        if self.hard:
            return Sample(pixels, torch.from_numpy(scenes.astype(np.uint8)))
        soft = np.eye(len(NAMES), dtype=np.uint8)[scenes[:, 2::4, 2::4]] * 230
        return Sample(pixels, torch.from_numpy(soft).permute(0, 3, 1, 2).contiguous())


def build_trainer(
    folder: Path,
    *,
    stage: str = "image",
    steps: int = 4,
    batch: int = 2,
    hard: bool = False,
    network_seed: int = 0,
    train: Dataset[Sample] | None = None,
    validation: Dataset[Sample] | None = None,
    workers: int = 0,
    on_step: Any = lambda step, steps: None,
    backbone: str = BACKBONES[0],
    drops: bool = True,
    device: str = "cpu",
    **numbers: Any,
) -> tuple[Trainer, list[dict[str, Any]]]:
    """A trainer in float32, and the list that its records go to. ``drops``: with dropout and drop path."""
    frames = 1 if stage == "image" else 3
    numbers = {"learning_rate": 1e-3, "warmup_steps": 2} | numbers
    options = TrainOptions(stage, steps=steps, batch=batch, **numbers)
    records: list[dict[str, Any]] = []
    network = build_tiny_network(backbone, seed=network_seed)
    if not drops:
        network.decode_head.dropout.p = 0.0
        for module in network.modules():
            if isinstance(module, DropPath):
                module.probability = 0.0
    trainer = Trainer(
        network,
        tiny_card(backbone),
        options,
        train or ColouredClips(10_000, frames=frames, hard=hard),
        validation or ColouredClips(2, frames=frames, hard=hard, first=20_000),
        folder,
        device=torch.device(device),
        precision=torch.float32,
        workers=workers,
        report=records.append,
        on_step=on_step,
    )
    return trainer, records


def run(trainer: Trainer, **intervals: int) -> float:
    """Run to the end; logs every step and validates and saves only then, unless told otherwise."""
    return trainer.run(**{"validate_every": 10_000, "checkpoint_every": 10_000, "log_every": 1} | intervals)


def step_records(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of steps, without validations."""
    return [record for record in records if "lr" in record]


def mean_of(loss: WeightedSum) -> Tensor:
    """Mean loss, as the trainer computes it."""
    return loss.total / loss.weight.clamp_min(1e-6)
