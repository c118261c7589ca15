"""Views of VSPW frames as in the paper: random resize, crop, flip and photometric distortion.

The paper names these four and a crop of 480 px; the other numbers are SegFormer's. Distillation uses stronger views
(augment.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.training.augment import View, view_hard_labels

RESIZE_RANGE = (0.5, 2.0)
"""Range of random resize (uniform), relative to the size at inference (480 px for the short side)."""

MOST_OF_ONE_CLASS = 0.75
"""A crop with a larger share of one class is drawn again (SegFormer's cat_max_ratio), at most CROP_TRIALS times."""

CROP_TRIALS = 10


def draw_vspw_view(rng: np.random.Generator, labels: NDArray[np.uint8], crop: int, short_side_px: int) -> View:
    """Draw a view of ``crop`` px for a clip whose keyframe has ``labels`` (H, W).

    ``short_side_px`` is the short side at inference. Whether a crop has enough classes is decided by the keyframe, as
    the paper names no frame.
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
    """Crop of a (height, width) source resized to a short side of ``scaled_px``, without rotation.

    ``place`` (x, y) is the position from the first crop inside (0) to the last (1). A source smaller than the crop is
    centred in it; SegFormer pads on the right and below.
    """
    step = min(source) / scaled_px  # source px per output px
    room = np.array([source[1], source[0]]) - step * crop
    start = np.where(room > 0, np.array(place) * room, room / 2)
    last_x = step * (crop - 1) if is_flipped else 0.0
    offset = start + 0.5 * step - 0.5 + np.array([last_x, 0.0])
    linear = step * np.diag([-1.0 if is_flipped else 1.0, 1.0])
    return View(np.column_stack([linear, offset]), crop)


def _is_varied(labels: NDArray[np.uint8]) -> bool:
    """Whether there are two classes or more, none of which has too large a share of the labelled pixels."""
    counts = np.bincount(labels.ravel(), minlength=NO_CLASS + 1)[:NO_CLASS]
    return bool(0 < counts.max() < MOST_OF_ONE_CLASS * counts.sum())


def _distorted(rng: np.random.Generator, view: View) -> View:
    """Draw a photometric distortion for the whole clip; each kind is applied in half of the views.

    SegFormer adds brightness, then multiplies by contrast. A view applies contrast around 128, so its brightness
    includes the difference.
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
