"""Draws how often pixels change their label: ``python assets/method_picture.py VIDEO OUT [MODEL]``.

One panel for each step of the method, with the share of pixels that change from frame to frame.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tfcseg.drawing.render import shrink, side_by_side
from tfcseg.inference.segment import segment
from tfcseg.media.reader import read_frames
from tfcseg.weights.loading import LoadedModel, load_model

PAPER = {
    "sides": "one",
    "correlation": "paper",
    "threshold": 0.8,
    "keyframe_interval": 4,
    "half_size_share": 0.0,
    "things_share": 0.0,
}
STEPS: dict[str, dict[str, Any]] = {
    "every frame by itself": {"mode": "image"},
    "the paper's TFC": PAPER,
    "only keyframes before": {"sides": "past", "keyframes": "fixed", "keyframe_interval": 4},
    "both sides": {"sides": "both", "keyframes": "fixed", "keyframe_interval": 4},
    "both sides, adaptive": {"sides": "both", "keyframes": "adaptive", "keyframe_interval": 4},
}
MOST = 0.25
"""Share of the frames from which on a pixel is white."""

WIDTH_PX = 400


def changes(video: Path, model: LoadedModel, options: dict[str, Any]) -> NDArray[np.float64]:
    """(H, W) share of the frames in which a pixel's label differs from that of the frame before."""
    count: NDArray[np.float64] | None = None
    before: NDArray[np.uint8] | None = None
    pairs = 0
    for frame in segment(read_frames(video), model, **options):
        if before is not None:
            differs = (frame.labels != before).astype(np.float64)
            count = differs if count is None else count + differs
            pairs += 1
        before = frame.labels
    if count is None:
        raise SystemExit(f"{video}: two frames are needed")
    return count / pairs


def panel(share: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(h, w, 3) RGB heat of the shares."""
    heat = (np.clip(share / MOST, 0, 1) * 255).astype(np.uint8)
    picture = np.asarray(cv2.cvtColor(cv2.applyColorMap(heat, cv2.COLORMAP_HOT), cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return shrink(picture, (round(WIDTH_PX * share.shape[0] / share.shape[1]), WIDTH_PX))


def main(video: Path, out: Path, model: str = "default") -> None:
    """Segment the video with every step, and draw what changes."""
    loaded = load_model(model)
    panels, titles = [], []
    for title, options in STEPS.items():
        share = changes(video, loaded, options)
        print(f"{title}: {100 * share.mean():.2f} %", flush=True)
        panels.append(panel(share))
        titles.append(f"{title}: {100 * share.mean():.2f} %")
    Image.fromarray(side_by_side(panels, titles)).save(out, quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])
