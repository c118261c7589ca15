"""Training on several processes (``torchrun``): sums over all of them, so that N processes equal one large batch."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce as differentiable_all_reduce


def start_processes(device: torch.device) -> tuple[int, int]:
    """(rank, number of processes); joins the group that ``torchrun`` announces in the environment, if any."""
    if "RANK" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of ``value`` over all processes, without gradient; ``value`` itself where there is one process."""
    if not dist.is_initialized():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes: one message, whatever took part in the step."""
    if not dist.is_initialized():
        return
    trainable = [p for p in parameters if p.requires_grad]
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in trainable])
    dist.all_reduce(flat)
    for parameter, gradient in zip(trainable, flat.split([p.numel() for p in trainable]), strict=True):
        parameter.grad = gradient.view_as(parameter).clone()


class CrossProcessBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, on any device (torch's own SyncBatchNorm needs GPUs)."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W), normalised by the mean and variance of all processes' batches in training."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        x = input.float()
        count = torch.tensor([float(x.numel() // x.shape[1])], device=x.device)
        sums = torch.cat([x.sum((0, 2, 3)), (x * x).sum((0, 2, 3)), count])
        total, squares, number = differentiable_all_reduce(sums).split([x.shape[1], x.shape[1], 1])
        mean = total / number
        variance = (squares / number - mean * mean).clamp_min(0)
        with torch.no_grad():
            momentum = 0.0 if self.momentum is None else self.momentum
            unbiased = variance * (number / (number - 1).clamp_min(1))
            self.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(unbiased, momentum)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr,operator]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised = (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(input.dtype)


def use_cross_process_norm(network: nn.Module) -> None:
    """Replace every batch norm below ``network`` by one over all processes, in place; same parameters, same names."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                replacement = CrossProcessBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
                replacement.load_state_dict(child.state_dict())
                setattr(module, name, replacement)
