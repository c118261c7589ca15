"""Device and floating-point type of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tfcseg.options import Option

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """Arguments of `load_model`."""

    device: Annotated[str, Option("auto, cpu, cuda, cuda:<number> or mps.", suggestions=DEVICES)] = "auto"
    precision: Annotated[
        str,
        Option(
            "auto, fp32, bf16 or fp16 (auto: fp16 on CUDA, bf16 on processors that have it, else fp32).",
            choices=PRECISIONS,
        ),
    ] = "auto"

    @property
    def may_use_gpu(self) -> bool:
        """Whether a GPU is used where there is one."""
        return self.device == "auto" or self.device.startswith("cuda")
