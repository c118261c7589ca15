"""Identify a video without reading all of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_SAMPLES = 64
_SAMPLE_BYTES = 1 << 14


def fingerprint(path: Path) -> str | None:
    """Hash the size of a file and samples of its content; for a folder, names, sizes and samples of some files.

    Reads at most a million bytes. Returns None if nothing can be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            _add_folder(digest, path)
        elif path.is_file():
            _add_samples(digest, path, _SAMPLES)
        else:
            return None
    except (OSError, ValueError):
        return None
    return digest.hexdigest()


def _add_folder(digest: hashlib._Hash, folder: Path) -> None:
    with os.scandir(folder) as entries:
        files = sorted((entry.name, entry.stat().st_size) for entry in entries if entry.is_file())
    for name, size in files:
        digest.update(os.fsencode(name) + b"\0" + str(size).encode() + b"\0")
    for index in _spread(len(files), _SAMPLES):
        _add_samples(digest, folder / files[index][0], 1)


def _add_samples(digest: hashlib._Hash, path: Path, samples: int) -> None:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode())
        blocks = -(-size // _SAMPLE_BYTES)
        for block in _spread(blocks, samples):
            file.seek(block * _SAMPLE_BYTES)
            digest.update(file.read(_SAMPLE_BYTES))


def _spread(count: int, samples: int) -> list[int]:
    """At most ``samples`` of the numbers below ``count``, from the first to the last."""
    return sorted({(count - 1) * part // max(1, samples - 1) for part in range(samples)}) if count else []
