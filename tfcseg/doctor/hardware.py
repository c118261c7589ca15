"""Check processor and GPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfcseg.doctor.findings import Finding
from tfcseg.machine import MAX_THREADS, available_cores, cpu_name, has_bfloat16

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def check_processor() -> Iterator[Finding]:
    """Name of the processor, how many of its cores the network uses, and whether it computes in bfloat16."""
    import torch

    cores, threads, asked = available_cores(), torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    has_bf16 = has_bfloat16()
    facts = {"name": cpu_name(), "cores": cores, "threads": threads, "OMP_NUM_THREADS": asked, "bfloat16": has_bf16}
    found = f"{facts['name']}: {cores} cores, of which the network uses {threads}"
    found += "; --precision bf16 is faster" if has_bf16 else ""
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
