"""Check the shipped weights and the default output folder."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfcseg.doctor.findings import Finding
from tfcseg.errors import TfcsegError
from tfcseg.weights.registry import ModelRecord, list_models
from tfcseg.weights.tensor_header import open_weights

_REINSTALL = "install tfcseg again: pip install --force-reinstall tfcseg"
_LITTLE_SPACE_BYTES = 1 << 30


def check_weights(assets: Path | None = None) -> Iterator[Finding]:
    """Compare every file of the registry with the SHA-256 that it must have."""
    try:
        records = list_models(assets)
    except TfcsegError as error:
        yield Finding("weights", "broken", str(error), _REINSTALL)
        return
    for record in records:
        yield _check_file(record)


def check_folder() -> Iterator[Finding]:
    """Write into the current folder, and report the free space."""
    folder = Path()
    try:
        folder = Path.cwd()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        advice = "change to a writable folder, or name one with --output"
        yield Finding("folder", "broken", f"{folder} is not writable ({error.strerror})", advice)
        return
    facts = {"path": str(folder), "free_mib": free_bytes >> 20}
    found = f"{folder} is writable, {free_bytes / (1 << 30):.1f} GiB free"
    if free_bytes < _LITTLE_SPACE_BYTES:
        yield Finding("folder", "note", found, "free some space, or name another disk with --output", facts)
        return
    yield Finding("folder", "ok", found, facts=facts)


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
