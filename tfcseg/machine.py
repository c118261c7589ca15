"""The machine and the libraries that things run on, as far as they can be told without loading any of them."""

from __future__ import annotations

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
"""Processor time that the container may use in each period, both in microseconds."""
MAX_THREADS = 16
FEW_CORES = 4
"""As many as the network has workers on a processor (inference.py)."""
LIBRARIES = {
    "torch": ("torch",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-contrib-python-headless", "opencv-python", "opencv-contrib-python"),
    "av": ("av",),
}
"""What we call the libraries that results depend on, and the packages that may bring them."""


def available_cores(quota: Path = CPU_QUOTA) -> int:
    """Cores that this process may use: a share of the machine's under ``taskset``, a batch system or in a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit_us, period_us = quota.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(limit_us) / int(period_us))))
    except (OSError, ValueError, ZeroDivisionError):  # not Linux, or "max": no limit
        return cores


def set_default_threads(environment: MutableMapping[str, str]) -> None:
    """Tell the libraries that will be loaded how many threads to use, unless the user did.

    They would take one per core of the machine: too many in a container that may use two of 64, and beyond MAX_THREADS
    the layers are too small for what waiting for each other costs. On few cores, where everything that can happens at
    the same time, OpenCV gets none of its own: there its threads only wait for theirs.
    """
    cores = available_cores()
    environment.setdefault("OMP_NUM_THREADS", str(min(cores, MAX_THREADS)))
    if cores <= FEW_CORES:
        environment.setdefault("OPENCV_FOR_THREADS_NUM", "1")


def has_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16 or AMX); elsewhere it is slower than float32."""
    # torch tells it too, but under a private name that changes between versions.
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags(cpu_info))


def cpu_flags(cpu_info: Path = CPU_INFO) -> set[str]:
    """Instruction sets of the processor as Linux names them; empty elsewhere."""
    return set(_first_value("flags", cpu_info).split())


def cpu_name(cpu_info: Path = CPU_INFO) -> str:
    """What the processor calls itself."""
    return _first_value("model name", cpu_info) or platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """What the hardware behind a device of PyTorch calls itself; ``device`` as in ``cpu`` or ``cuda:0``."""
    if not device.startswith("cuda"):
        return cpu_name()
    import torch

    return torch.cuda.get_device_name(device)


def library_versions() -> dict[str, str | None]:
    """Versions of Python and of ``LIBRARIES``; None for what is not installed."""
    found = {name: _version(packages) for name, packages in LIBRARIES.items()}
    if "torch" in sys.modules:  # it names its build, too, which the package does not always
        found["torch"] = str(sys.modules["torch"].__version__)
    return {"python": platform.python_version(), **found}


def _version(packages: tuple[str, ...]) -> str | None:
    for package in packages:
        with suppress(PackageNotFoundError):
            return version(package)
    return None


def _first_value(key: str, cpu_info: Path) -> str:
    """Value of the first line ``key : value``; an empty text if there is none."""
    try:
        text = cpu_info.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
    found = re.search(rf"^{key}[ \t]*:(.*)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else ""
