"""One process of a training run, started by torchrun in test_training.py: FOLDER BATCH."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from tests.helpers.tiny_training import build_trainer, run
from tfcseg.training.processes import first_process_first, use_cross_process_norm

CHANNELS, SIDE = 6, 5


def norm_input(rows: slice) -> torch.Tensor:
    """Rows of a batch of 4 with a mean far from 0."""
    return (torch.randn(4, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(3)) * 2 + 5)[rows]


def pass_norm(network: nn.Module, rows: slice) -> dict[str, torch.Tensor]:
    """Forward and backward through ``network``: output, gradients, statistics."""
    x = norm_input(rows).requires_grad_()
    y = network(x)
    (y * torch.linspace(0, 1, 4)[rows, None, None, None] * torch.arange(SIDE)).sum().backward()
    norm = network[0]
    return {
        "output": y.detach(),
        "input": x.grad,
        "weight": norm.weight.grad,
        "bias": norm.bias.grad,
        "mean": norm.running_mean,
        "variance": norm.running_var,
    }


def main(folder: Path, batch: int) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # Networks start out different: the first process's must win.
    trainer, records = build_trainer(
        folder / "run", stage="tfc", steps=2, batch=batch, network_seed=rank, backbone="mit_b0", drops=False
    )
    run(trainer)
    networks = nn.Sequential(nn.BatchNorm2d(CHANNELS))
    use_cross_process_norm(networks)
    order = first_process_first(lambda: len(list(folder.glob("went-*"))))
    (folder / f"went-{rank}").touch()
    torch.save(
        {
            "network": trainer.network.state_dict(),
            "records": records,
            "norm": pass_norm(networks, slice(rank * 4 // world, (rank + 1) * 4 // world)),
            "order": order,
        },
        folder / f"rank{rank}.pt",
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
