"""One process of a training run, started by torchrun in test_training.py: FOLDER BATCH."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.helpers.tiny_training import build_trainer, run
from tfcseg.training.processes import first_process_first

TOGETHER = {"stage": "tfc", "steps": 2, "backbone": "mit_b0", "drops": False, "train_norms": False}
"""Arguments of a trainer. Norms keep their statistics: only GPUs compute those of all processes."""


def main(folder: Path, batch: int) -> None:
    rank = int(os.environ["RANK"])
    # Networks start out different: the first process's must win.
    trainer, records = build_trainer(folder / "run", batch=batch, network_seed=rank, **TOGETHER)
    run(trainer)
    order = first_process_first(lambda: len(list(folder.glob("went-*"))))
    (folder / f"went-{rank}").touch()
    torch.save(
        {
            "network": trainer.network.state_dict(),
            "records": records,
            "order": order,
        },
        folder / f"rank{rank}.pt",
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
