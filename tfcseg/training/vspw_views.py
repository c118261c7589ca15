"""Views of VSPW frames as the paper draws them: random resize, crop, flip and photometric distortion.

The paper names the four and the crop of 480 px and leaves the numbers to SegFormer's recipe, whose numbers these are.
Teachers' photos get stronger views (augment.py); these here are for results that can be compared with the paper's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.training.augment import View, view_hard_labels

RESIZE_RANGE = (0.5, 2.0)
"""Random resize, uniform, relative to the size at inference (480 px for the short side)."""

MOST_OF_ONE_CLASS = 0.75
"""A crop with a larger share of one class is drawn again (SegFormer's cat_max_ratio), at most CROP_TRIALS times."""

CROP_TRIALS = 10


def draw_vspw_view(rng: np.random.Generator, labels: NDArray[np.uint8], crop: int, short_side_px: int) -> View:
    """A random view of ``crop`` px over a clip whose keyframe has ``labels`` (H, W).

    ``short_side_px`` is the short side at inference. The paper is silent on which frame decides whether a crop holds
    enough classes: here the keyframe.
    """
    scaled_px = short_side_px * rng.uniform(*RESIZE_RANGE)
    is_flipped = bool(rng.random() < 0.5)
    for _ in range(CROP_TRIALS):
        view = crop_view(labels.shape, crop, scaled_px, tuple(rng.random(2)), is_flipped=is_flipped)
        if _is_varied(view_hard_labels(labels, view)):
            break
    return _distorted(rng, view)


def crop_view(
    source: tuple[int, ...], crop: int, scaled_px: float, place: tuple[float, ...] = (0.5, 0.5), *, is_flipped: bool
) -> View:
    """Crop of a (height, width) source resized to a short side of ``scaled_px``, neither turned nor stretched.

    ``place`` (x, y) goes from the first crop that lies inside (0) to the last (1). What is smaller than the crop is
    centred in it: SegFormer pads on the right and below, which tells a network with borders as much.
    """
    step = min(source) / scaled_px  # source px per output px
    room = np.array([source[1], source[0]]) - step * crop
    start = np.where(room > 0, np.array(place) * room, room / 2)
    last_x = step * (crop - 1) if is_flipped else 0.0
    offset = start + 0.5 * step - 0.5 + np.array([last_x, 0.0])
    linear = step * np.diag([-1.0 if is_flipped else 1.0, 1.0])
    return View(np.column_stack([linear, offset]), crop)


def _is_varied(labels: NDArray[np.uint8]) -> bool:
    """Whether there are two classes at least, none of them with too large a share of the labelled pixels."""
    counts = np.bincount(labels.ravel(), minlength=NO_CLASS + 1)[:NO_CLASS]
    return bool(0 < counts.max() < MOST_OF_ONE_CLASS * counts.sum())


def _distorted(rng: np.random.Generator, view: View) -> View:
    """Photometric distortion, each kind in every other view. One draw for the whole clip: nothing may flicker.

    SegFormer adds brightness, then multiplies with contrast (here and there only after the colours, which is left out).
    A view turns contrast around 128, so that its brightness takes up the difference.
    """

    def maybe(low: float, high: float, neutral: float) -> float:
        return float(rng.uniform(low, high)) if rng.random() < 0.5 else neutral

    added, contrast = maybe(-32.0, 32.0, 0.0), maybe(0.5, 1.5, 1.0)
    return replace(
        view,
        contrast=contrast,
        brightness=contrast * added + 128.0 * (contrast - 1.0),
        saturation=maybe(0.5, 1.5, 1.0),
        hue_shift=round(maybe(-18.0, 18.0, 0.0)),
    )
