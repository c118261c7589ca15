"""Makes sets of labelled stills that the tiny teacher sees right through: every class has its colour."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "gray": (110, 110, 110)}
"""What tests/helpers/tiny_teacher.py calls its class 1, 2, 3 and 0."""


def paint(colours: Sequence[Sequence[str]], size=(64, 96)) -> np.ndarray:
    """(H, W, 3) RGB of cells; one row of names of colours per row of cells."""
    return _enlarge([[COLOURS[name] for name in row] for row in colours], size)


def paint_mask(values: Sequence[Sequence[int]], size=(64, 96)) -> np.ndarray:
    """(H, W) ids of cells."""
    return _enlarge(values, size)


def write_stills(folder: Path, classes: Mapping[str, int], stills: Sequence[tuple[np.ndarray, np.ndarray]]) -> Path:
    """Write (image, mask) pairs and, in the folder above, classes.json; returns ``folder``."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    ids = {"0": "void"} | {str(number): name for name, number in classes.items()}
    (folder.parent / "classes.json").write_text(json.dumps(ids))
    for index, (image, mask) in enumerate(stills):
        cv2.imwrite(str(folder / "images" / f"{index:04d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(folder / "masks" / f"{index:04d}.png"), mask)
    return folder


def _enlarge(cells, size) -> np.ndarray:
    small = np.array(cells, np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
