"""The backbone as compiled code (``--compile``) with CUDA graphs.

Compiled code is made for one shape, and compiling takes longer than processing many frames. It is therefore done in
advance for the shapes that a run will use; all other shapes (a shorter last interval, pictures of another size) use
ordinary code. Only the backbone is compiled: it is most of the work, and its computation does not depend on the frames.

Users compile for GPUs only. On a CPU nearly all time is spent in convolutions and matrix products that are the same
either way: on one core, runs became 0 to 7 % faster, and on several slower, because compiled intervals are computed one
after the other.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from tfcseg.errors import TfcsegError
from tfcseg.model.ops import strips
from tfcseg.model.tfc import Backbone, TFCSegmenter

logger = logging.getLogger(__name__)

Half: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``encode_low`` or ``encode_high``: (B, C, h, w) to two levels of B maps each."""

WARM_UP_CALLS = 3
"""A CUDA graph is recorded in the second call and first replayed in the third."""
SHAPES = 64
"""Maximum number of shapes compiled in one process."""


class CompiledHalf:
    """Half of a backbone, compiled for some shapes and unchanged for all others.

    A batch is computed in parts of the compiled sizes; the rest uses ordinary code.
    """

    def __init__(self, half: Half, backend: str) -> None:
        self._half = half
        self._batches: dict[tuple[int, ...], set[int]] = {}
        """(C, h, w) → frames at once."""
        self._compiled: Half = torch.compile(half, dynamic=False, fullgraph=True, backend=backend)
        self._recorded: Half = torch.compile(half, dynamic=False, fullgraph=True, mode="reduce-overhead")

    def prepare(self, example: Tensor) -> tuple[Tensor, Tensor]:
        """Compile for the shape of ``example``; returns its levels."""
        self._batches.setdefault(tuple(example.shape[1:]), set()).add(example.shape[0])
        for _ in range(WARM_UP_CALLS):
            levels = self(example)
        return levels

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Levels of ``x``."""
        sizes = sorted(self._batches.get(tuple(x.shape[1:]), ()), reverse=True)
        parts = []
        while len(x):
            size = next((size for size in sizes if size <= len(x)), None)
            parts.append(self._half(x) if size is None else self._run(x[:size]))
            x = x[len(x) if size is None else size :]
        if len(parts) == 1:
            return parts[0]
        first, second = zip(*parts, strict=True)
        return torch.cat(first), torch.cat(second)

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not x.is_cuda:
            return self._compiled(x)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        first, second = self._recorded(x.contiguous(memory_format=torch.channels_last))
        return first.clone(), second.clone()  # the next replay overwrites its output


class CompiledBackbone(nn.Module):
    """Backbone with the same two halves, compiled. ``backend`` is torch.compile's, on the CPU."""

    def __init__(self, backbone: Backbone, backend: str = "inductor") -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = backbone.channels
        self.encode_low = CompiledHalf(backbone.encode_low, backend)
        self.encode_high = CompiledHalf(backbone.encode_high, backend)
        self._prepared: set[tuple[object, ...]] = set()

    def prepare(self, images: Tensor, keyframes: int) -> float:
        """Compile for batches like ``images`` (B, 3, H, W), of which ``keyframes`` go through the high stages.

        Returns the seconds it took, 0 if it was done before. Raises TfcsegError if there is no compiler, or if it
        fails.
        """
        key = (*images.shape, keyframes, images.dtype, images.device)
        if key in self._prepared:
            return 0.0
        _check_compiler()
        logger.info("compiling the network", extra={"shape": tuple(images.shape), "keyframes": keyframes})
        started_s = time.perf_counter()
        torch.compiler.assume_constant_result(strips.thread_count)  # type: ignore[no-untyped-call]
        try:
            with torch.inference_mode(), torch._dynamo.config.patch({_limit_name(): SHAPES}):
                self.encode_high.prepare(self.encode_low.prepare(images)[1][:keyframes])
        except torch.OutOfMemoryError:
            raise TfcsegError("too little GPU memory to compile for this size; leave --compile out") from None
        except (torch._dynamo.exc.TorchDynamoException, RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise TfcsegError(f"torch.compile failed ({reason}); leave --compile out") from error
        self._prepared.add(key)
        elapsed_s = time.perf_counter() - started_s
        logger.info("compiled the network", extra={"seconds": round(elapsed_s, 1)})
        return elapsed_s


def compile_backbone(network: TFCSegmenter, images: Tensor, keyframes: int) -> float:
    """Replace a folded network's backbone by compiled code permanently; otherwise see `CompiledBackbone.prepare`."""
    backbone: object = network.backbone
    if not isinstance(backbone, CompiledBackbone):
        backbone = CompiledBackbone(network.backbone)
        network.backbone = cast(Backbone, backbone)
    return backbone.prepare(images, keyframes)


def _limit_name() -> str:
    """PyTorch's setting for the number of shapes that a function is compiled for; 2.7 renamed it."""
    return "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"


def _check_compiler() -> None:
    """Raise TfcsegError if torch.compile would find no C compiler: its own message is a page long."""
    chosen = os.environ.get("CC")
    if chosen and not shutil.which(chosen):
        raise TfcsegError(f"--compile needs a C compiler, and CC names {chosen!r}, which is not a program")
    if not chosen and not any(map(shutil.which, ("gcc", "clang", "cc", "cl"))):
        raise TfcsegError("--compile needs a C compiler (gcc or clang), and none was found; install one")
