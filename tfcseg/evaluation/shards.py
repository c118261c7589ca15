"""Share the videos of an evaluation among the processes of ``torchrun``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any


def _alone(part: Any) -> list[Any]:
    return [part]


@dataclass(frozen=True, slots=True)
class Shard:
    """Share of one process: items ``rank, rank + count, …``; ``gather`` gives all processes the parts of all."""

    rank: int = 0
    count: int = 1
    gather: Callable[[Any], list[Any]] = _alone


@contextlib.contextmanager
def torchrun_shard() -> Iterator[Shard]:
    """The share of this process under ``torchrun``, or all the work without it.

    Results travel as Python objects over gloo, which every build of torch has; models may use any device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Shard()
        return
    import torch.distributed as dist  # a second of start-up that single processes save

    # A long timeout: one process may finish its videos long before another.
    dist.init_process_group("gloo", timeout=timedelta(days=2))
    try:
        yield Shard(dist.get_rank(), dist.get_world_size(), _gather)
    finally:
        dist.destroy_process_group()


def _gather(part: Any) -> list[Any]:
    import torch.distributed as dist

    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts
