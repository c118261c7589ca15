"""Facts about the machine and installed libraries, threads and memory, without loading any library."""

from __future__ import annotations

import atexit
import ctypes
import gc
import math
import os
import platform
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Processor time that the container may use per period; both in microseconds."""
MAX_THREADS = 16
FEW_CORES = 4  # as many as the network has workers on a CPU (inference/engine.py)
_LIBRARIES = {
    "torch": ("torch",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-contrib-python-headless", "opencv-python", "opencv-contrib-python"),
    "av": ("av",),
}
"""Libraries that results depend on, and the packages that may provide them."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""Parameters of mallopt(3), from glibc's malloc.h."""


def available_cores(quota: Path = CPU_QUOTA) -> int:
    """Number of cores this process may use, which ``taskset``, a batch system or a container may limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit_us, period_us = quota.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(limit_us) / int(period_us))))
    except (OSError, ValueError, ZeroDivisionError):  # not Linux, or "max": no limit
        return cores


def set_default_threads(environment: MutableMapping[str, str]) -> None:
    """Tell libraries that are loaded later how many threads to use, unless the user has.

    Their default is one per core of the machine. That is too many in a container with 2 of 64 cores, and above
    MAX_THREADS layers are too small to share. On few cores OpenCV gets no threads of its own: they would only wait for
    the network's.
    """
    cores = available_cores()
    environment.setdefault("OMP_NUM_THREADS", str(min(cores, MAX_THREADS)))
    if cores <= FEW_CORES:
        environment.setdefault("OPENCV_FOR_THREADS_NUM", "1")


def collect_rarely() -> None:
    """Make Python look for unreachable cycles of objects less often, and not once more when the process ends. Importing
    torch creates so many objects that this takes a sixth of the time, and a fifth of a second at the end."""
    gc.set_threshold(10_000)  # new objects before the next search; Python's own number is 700 or 2000
    atexit.register(gc.freeze)


def keep_freed_memory() -> bool:
    """Make this process keep freed memory for reuse. Its peak does not grow; memory is not returned before it ends.

    Networks allocate and free large maps on every frame. glibc by default returns large blocks to the system at once,
    so the next frame pays a page fault for every page. It also gives each thread its own heap, whose free memory other
    threads cannot use; waiting for each other at one heap costs too little to measure.

    This affects the whole process, so only programs should call it, before they allocate anything large. Returns False
    if the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is None:
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20, _ARENA_MAX: 1}
    return all(mallopt(parameter, value) for parameter, value in settings.items())


def has_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether the processor has bfloat16 instructions (AVX512-BF16 or AMX), by Linux's list of them. Without them
    bfloat16 is slower than float32."""
    # torch reports it only under a private name that changes between versions.
    return bool({"avx512_bf16", "amx_bf16"} & set(_first_value("flags", cpu_info).split()))


def cpu_name() -> str:
    """Name of the processor."""
    return _first_value("model name", CPU_INFO) or platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """Name of the hardware behind a PyTorch ``device`` such as ``cpu`` or ``cuda:0``."""
    if not device.startswith("cuda"):
        return cpu_name()
    import torch

    return torch.cuda.get_device_name(device)


def library_versions() -> dict[str, str | None]:
    """Versions of Python and of what results depend on; None if not installed."""
    found = {name: _version(packages) for name, packages in _LIBRARIES.items()}
    if "torch" in sys.modules:  # torch itself also names its build
        found["torch"] = str(sys.modules["torch"].__version__)
    return {"python": platform.python_version(), **found}


def _version(packages: tuple[str, ...]) -> str | None:
    for package in packages:
        with suppress(PackageNotFoundError):
            return version(package)
    return None


def _first_value(key: str, cpu_info: Path) -> str:
    try:
        text = cpu_info.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
    found = re.search(rf"^{key}[ \t]*:(.*)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else ""
