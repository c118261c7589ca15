"""Train on several processes (``torchrun``): with sums over all of them, N processes equal one large batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tfcseg.errors import TfcsegError

_T = TypeVar("_T")

_LONGEST_WAIT = timedelta(days=7)
"""The others may wait for hours while the first process labels media."""


class FirstProcessError(TfcsegError):
    """The first process failed and reported it; the others exit silently."""


def is_first_process() -> bool:
    """Whether this process prints and writes files."""
    return os.environ.get("RANK", "0") == "0"


def processes_here() -> int:
    """Number of processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def processes_in_all() -> int:
    """Number of processes of this run on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_device(device: torch.device) -> torch.device:
    """``device``; for CUDA without an index, this process's GPU."""
    if device.type != "cuda" or device.index is not None:
        return device
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(own)
    return own


def start_processes(device: torch.device) -> tuple[int, int]:
    """Join the process group of ``torchrun``, if there is one; returns (rank, number of processes)."""
    if "RANK" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()


def first_process_first(task: Callable[[], _T]) -> _T:
    """Run ``task`` in the first process, then in the others; returns its result.

    Results that are kept on disk (labels) are then computed once. If it fails, the others raise FirstProcessError.
    """
    if not dist.is_initialized():
        return task()
    # A separate group, since the default one times out after minutes.
    waiting = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    if dist.get_rank() == 0:
        result = task()
        dist.barrier(waiting)
        return result
    try:
        dist.barrier(waiting)
    except RuntimeError:  # the first has ended
        raise FirstProcessError("the first process failed") from None
    return task()


def end_processes() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def copy_from_first(network: nn.Module) -> None:
    """Copy the parameters and statistics of the first process to all, in place."""
    for tensor in network.state_dict().values():
        copy = tensor.detach().contiguous()
        dist.broadcast(copy, 0)
        tensor.copy_(copy)


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum ``value`` over all processes, without gradient; a single process gets ``value`` back."""
    if not dist.is_initialized():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes, in one message."""
    if not dist.is_initialized():
        return
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
    dist.all_reduce(flat)
    for parameter, gradient in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
        parameter.grad = gradient.view_as(parameter).clone()
