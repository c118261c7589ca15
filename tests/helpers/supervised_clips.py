"""A VSPW folder that a network learns in a minute: large shapes in a few colours, one that moves, and a noisy camera.

The scene's pictures are still but for the car, so that an image network's labels flicker with the noise alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from tests.helpers.vspw_fixture import CAR, GRASS, SKY, TREE, VOID, Labels, image_path, make_vspw, mask_path

SIZE = (64, 96)
FRAMES = 12
"""Four windows of 8 frames (the last is left out), three intervals of 4."""

NOISE = 60.0
"""Deviation of the camera's noise per channel: enough for labels to flicker at the shapes' edges."""

COLOURS = np.zeros((256, 3))
COLOURS[[SKY, GRASS, TREE, CAR, VOID]] = [(200, 150, 90), (60, 170, 80), (90, 90, 40), (60, 60, 210), (60, 60, 210)]
"""BGR, as OpenCV writes it."""


def make_clips(root: Path, clips: int) -> Path:
    """Write ``clips`` videos, all of which train and validate; return ``root``."""
    make_vspw(root, {f"{number}_street": FRAMES for number in range(clips)}, size=SIZE, split="train")
    shutil.copy(root / "train.txt", root / "val.txt")
    for number in range(clips):
        rng = np.random.default_rng(number)
        for index, mask in enumerate(sorted((root / "data" / f"{number}_street" / "mask").iterdir())):
            raw = draw_street(index, number)
            image = COLOURS[raw] + NOISE * rng.standard_normal((*SIZE, 3))
            cv2.imwrite(
                str(image_path(root, f"{number}_street", int(mask.stem))), np.clip(image, 0, 255).astype(np.uint8)
            )
            cv2.imwrite(str(mask_path(root, f"{number}_street", int(mask.stem))), raw)
    return root


def draw_street(index: int, number: int) -> Labels:
    """Raw (H, W) labels of frame ``index``: sky over grass, a tree that stands, a car that goes, void around it."""
    raw = np.full(SIZE, SKY, np.uint8)
    raw[28 + 3 * number :] = GRASS
    tree = 6 + 9 * number
    raw[6:50, tree : tree + 24] = TREE
    left = 62 - 6 * number - 2 * index
    raw[24:55, max(0, left - 1) : left + 32] = VOID
    raw[25:54, left : left + 31] = CAR
    return raw
