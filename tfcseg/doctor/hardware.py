"""Check processor and GPU, and measure how fast each precision is on them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfcseg.doctor.findings import Finding
from tfcseg.machine import MAX_THREADS, available_cores, cpu_flags, cpu_name

if TYPE_CHECKING:
    import torch

_BF16_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_ROUNDS = 8
_WORTHWHILE = 1.15
"""How many times as fast a shorter type must be to justify its rounding."""


def check_processor() -> Iterator[Finding]:
    """Name of the processor, and how many of its cores the network uses."""
    import torch

    cores, threads, asked = available_cores(), torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    facts = {"name": cpu_name(), "cores": cores, "threads": threads, "OMP_NUM_THREADS": asked}
    found = f"{facts['name']}: {cores} cores, of which the network uses {threads}"
    if asked is not None and threads < min(cores, MAX_THREADS) / 2:
        advice = f"unset OMP_NUM_THREADS (it is {asked}), unless other programs need the cores"
        yield Finding("processor", "note", found, advice, facts)
        return
    yield Finding("processor", "ok", found, facts=facts)


def check_gpu() -> Iterator[Finding]:
    """GPUs that PyTorch can use, and a driver without a PyTorch that uses it."""
    import torch

    has_mps = torch.backends.mps.is_available()
    facts: dict[str, Any] = {"cuda": torch.version.cuda, "hip": torch.version.hip, "mps": has_mps, "gpus": []}
    if torch.cuda.is_available():
        properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        facts["gpus"] = [{"name": p.name, "memory_mib": p.total_memory >> 20} for p in properties]
        found = ", ".join(f"{p.name} ({p.total_memory / (1 << 30):.0f} GiB)" for p in properties)
        yield Finding("GPU", "ok", f"{found}; used unless --device says otherwise", facts=facts)
    elif _NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi"):
        found = f"there is an NVIDIA driver, but PyTorch {torch.__version__} finds no GPU"
        advice = "install PyTorch for CUDA (https://pytorch.org/get-started/locally); without it the CPU is used"
        yield Finding("GPU", "note", found, advice, facts)
    elif has_mps:
        yield Finding("GPU", "ok", "Apple GPU; used with --device mps", facts=facts)
    else:
        yield Finding("GPU", "ok", "none; the network runs on the CPU", facts=facts)


def check_precision() -> Iterator[Finding]:
    """Measure how much faster than fp32 the shorter types are."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    types = {"bf16": torch.bfloat16} | ({"fp16": torch.float16} if device.type == "cuda" else {})
    fastest_s = _fastest_s([torch.float32, *types.values()], device)
    factors = {name: round(fastest_s[torch.float32] / fastest_s[dtype], 2) for name, dtype in types.items()}
    has = [title for flag, title in _BF16_FLAGS.items() if flag in cpu_flags()] if device.type == "cpu" else []
    facts: dict[str, Any] = {"device": device.type, "instructions": has, "times_as_fast_as_fp32": factors}
    yield precision_finding(factors, has, device.type, facts)


def precision_finding(factors: dict[str, float], has: list[str], device: str, facts: dict[str, Any]) -> Finding:
    """Judge measured speeds; ``has`` names the instructions for bfloat16 that a processor has."""
    measured = " and ".join(f"{name} {factor:.1f} times" for name, factor in factors.items())
    by = f" ({', '.join(has)})" if has else ""
    found = f"fp32 works; {measured} as fast on this {'GPU' if device == 'cuda' else 'CPU'}{by}"
    if max(factors.values()) >= _WORTHWHILE:
        return Finding("precision", "ok", found, facts=facts)
    why = "there are no instructions for it" if device == "cpu" and not has else "it gains nothing"
    return Finding("precision", "ok", f"{found}: not recommended, {why}", facts=facts)


def _fastest_s(types: Sequence[torch.dtype], device: torch.device) -> dict[torch.dtype, float]:
    """Shortest time of a convolution in each type. They take turns, so that other load affects all of them."""
    import torch

    with torch.inference_mode():
        runs = {dtype: _convolution(dtype, device) for dtype in types}
        for run in runs.values():
            run()  # libraries choose their kernels in the first call
        rounds = [{dtype: _seconds(run) for dtype, run in runs.items()} for _ in range(_ROUNDS)]
    return {dtype: min(times[dtype] for times in rounds) for dtype in types}


def _convolution(dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """A 1×1 convolution like those of the network: 128 to 256 channels at 60×80."""
    import torch

    image = torch.ones(1, 128, 60, 80, dtype=dtype, device=device).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(128, 256, 1, bias=False).to(device=device, dtype=dtype)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs forgot this one

    def run() -> None:
        for _ in range(4):
            layer(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def _seconds(action: Callable[[], None]) -> float:
    started_s = time.perf_counter()
    action()
    return time.perf_counter() - started_s
