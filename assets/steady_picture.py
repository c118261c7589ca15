"""Draw assets/steady.jpg: masks of the demo clip before and after ``tfcseg steady``, and how often pixels change.

python assets/steady_picture.py MASKS assets/steady.jpg, with a PNG of class indices (label set ``scenes``) per frame.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import overlay
from tfcseg.labels.label_sets import SCENES
from tfcseg.media.mask_folder import list_masks
from tfcseg.media.masks import read_values
from tfcseg.media.reader import read_frames

CLIP = Path(__file__).with_name("demo.mp4")
FRAMES = (20, 21, 22)
WIDTH = 320
EVERY = 4  # frames: white is a change in each of these


def small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture at ``WIDTH``."""
    height = round(WIDTH * picture.shape[0] / picture.shape[1])
    return np.asarray(cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)


def row(images: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Three frames with their masks, and the map of changes."""
    palette = SCENES.palette_array()
    pictures = [small(overlay(images[at], masks[at], palette, alpha=0.6)) for at in FRAMES]
    changes = np.mean([now != before for before, now in pairwise(masks)], axis=0)
    gray = small((255 * np.clip(EVERY * changes, 0, 1)).astype(np.uint8))
    return np.hstack([*pictures, np.repeat(gray[..., None], 3, axis=2)])


def main(masks: str, target: str) -> None:
    """Steady the masks of the clip and draw both."""
    images = [frame.image for frame in read_frames(CLIP)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "steady"
        plain = ["--no-overlay", "--no-report", "--no-flow-consistency", "-q"]
        subprocess.run(["tfcseg", "steady", str(CLIP), "--masks", masks, "-o", str(out), *plain], check=True)
        rows = [
            row(images, [read_values(path)[0] for path in list_masks(each)]) for each in (Path(masks), out / "masks")
        ]
    picture = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(target, picture, [cv2.IMWRITE_JPEG_QUALITY, 82])


if __name__ == "__main__":
    main(*sys.argv[1:])
