"""What this machine's processor offers to training."""

from __future__ import annotations

import os
import re
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may use; a share of the machine's under ``taskset`` or a batch system."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_bfloat16(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16 or AMX); elsewhere it is slower than float32."""
    # torch tells it too, but under a private name that changes between versions.
    return cpu_info.exists() and bool(re.search(r"^flags\b.*\b(avx512_bf16|amx_bf16)\b", cpu_info.read_text(), re.M))
