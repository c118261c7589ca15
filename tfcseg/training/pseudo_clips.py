"""Make clips from stills: the camera moves over one, and an object cut out of another moves on its own.

Labels move with the pixels, so they are exact in time, unlike teachers' labels of real clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.training.augment import (
    LABEL_STRIDE,
    View,
    add_noise,
    as_bytes,
    distort_colours,
    draw_view,
    view_image,
    view_soft_labels,
)

Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""An image (H, W, 3) and its soft labels (G, G, K)."""

OBJECT_SHARE = (0.01, 0.3)
"""Range of an object's share of the image that it is cut out of."""

CAMERA_PX, OBJECT_PX = 10.0, 14.0
"""Standard deviation of the motion from frame to frame, in output px, for crops of about 320 px."""

PASTE_SHARE = 0.7


def pseudo_clip(
    rng: np.random.Generator, scene: Labelled, donor: Labelled, crop: int, length: int
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """``length`` images (S, S, 3) and soft labels (s, s, K); the camera stands still in a third of the clips."""
    size = scene[0].shape[:2]
    first = draw_view(rng, size, crop)
    first = replace(first, blur_px=0.0, motion_px=(0.0, 0.0))  # edges stay where labels change
    moves = rng.random() > 1 / 3
    views = [View(matrix, crop) for matrix in _path(rng, first, length, CAMERA_PX * moves, 0.015 * moves)]
    images = [view_image(scene[0], view) for view in views]
    soft = [view_soft_labels(scene[1], size, view) for view in views]
    mask = cut_out(rng, donor) if rng.random() < PASTE_SHARE else None
    if mask is not None:
        extent, centre = rng.uniform(0.15, 0.6), rng.uniform(0.1, 0.9, 2) * crop
        paste(rng, donor, mask, images, soft, extent=extent, centre=centre)
    # Sensor noise: identical frames would teach that w = 1 only for bit-equal images.
    images = [add_noise(each, seed=int(rng.integers(2**31)), deviation=rng.uniform(0.5, 5.0)) for each in images]
    return [distort_colours(image, first) for image in images], soft


def _path(rng: np.random.Generator, view: View, length: int, shift_px: float, zoom: float) -> list[NDArray[np.float64]]:
    """Matrices of views that start at ``view`` and move at constant velocity, with a little shake."""
    velocity = rng.normal(0, shift_px, 2)
    growth = 1.0 + rng.normal(0, zoom) if zoom else 1.0
    centre = np.full(2, (view.size - 1) / 2)
    matrices = []
    for t in range(length):
        shake = rng.normal(0, 0.15 * shift_px, 2) if t else np.zeros(2)
        scale = growth**t
        # Output px → output px of the first frame → source px.
        step = np.array([[scale, 0, 0], [0, scale, 0], [0, 0, 1.0]])
        step[:2, 2] = centre - scale * centre + velocity * t + shake
        matrices.append(view.matrix @ step)
    return matrices


def cut_out(
    rng: np.random.Generator, donor: Labelled, classes: Sequence[int] | None = None
) -> NDArray[np.uint8] | None:
    """Mask (G, G) in {0, 255} of a connected, confidently labelled region of the donor; None if there is none.

    ``classes`` restricts it to regions of these.
    """
    soft = donor[1]
    labels = soft.argmax(-1).astype(np.uint8)
    sure = soft.max(-1) > 128
    if classes is not None:
        sure &= np.isin(labels, classes)
    for label in rng.permutation(np.unique(labels[sure])):
        mask = ((labels == label) & sure).astype(np.uint8)
        count, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
        if count < 2:
            continue
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        if OBJECT_SHARE[0] < stats[largest, cv2.CC_STAT_AREA] / mask.size < OBJECT_SHARE[1]:
            return np.where(parts == largest, 255, 0).astype(np.uint8)
    return None


def paste(
    rng: np.random.Generator,
    donor: Labelled,
    mask: NDArray[np.uint8],
    images: Sequence[NDArray[np.uint8]],
    soft: Sequence[NDArray[np.uint8]],
    *,
    extent: float,
    centre: NDArray[np.float64],
) -> None:
    """Draw the object under ``mask`` into every image, moving on its own path; in place.

    ``extent`` is its longer side relative to the images, ``centre`` its place (x, y) in the first one, in pixels.
    """
    source = donor[0]
    height, width = source.shape[:2]
    # Extend the object's labels beyond its edge, where cells of the frame may have their centres.
    own = mask[..., None] > 0
    labels = np.where(own, donor[1], np.rint(donor[1].mean((0, 1), where=own)).astype(np.uint8))
    full_mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    rows, columns = np.nonzero(mask)
    crop = images[0].shape[0]
    own_centre = np.array([columns.mean() / mask.shape[1] * width, rows.mean() / mask.shape[0] * height])
    own_extent = max(np.ptp(columns) / mask.shape[1] * width, np.ptp(rows) / mask.shape[0] * height, 8.0)
    step = own_extent / (crop * extent)  # donor px per output px
    flip = -1.0 if rng.random() < 0.5 else 1.0
    linear = np.diag([step * flip, step])
    start = View(np.column_stack([linear, own_centre - linear @ centre]), crop)
    for matrix, image, grid in zip(_path(rng, start, len(images), OBJECT_PX, 0.03), images, soft, strict=True):
        view = replace(start, matrix=matrix)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        alpha = as_bytes(cv2.warpAffine(full_mask, matrix, (crop, crop), flags=flags))
        pixels = cv2.warpAffine(source, matrix, (crop, crop), flags=flags)
        blend(image, alpha, pixels)
        inside = cv2.resize(alpha, (crop // LABEL_STRIDE,) * 2, interpolation=cv2.INTER_AREA) > 127
        grid[inside] = view_soft_labels(labels, (height, width), view)[inside]


def blend(image: NDArray[np.uint8], alpha: NDArray[np.uint8], colour: NDArray[Any]) -> None:
    """Paint an image (S, S, 3) with a colour (3,), or one per pixel (S or 1, S or 1, 3), as opaque as ``alpha``.
    Colours are clipped to 0…255."""
    here = covered_part(alpha)
    share = alpha[here][..., None].astype(np.float32) / 255
    paint = np.broadcast_to(colour, image.shape)[here].clip(0, 255).astype(np.float32)
    image[here] = np.rint(image[here] * (1 - share) + paint * share).astype(np.uint8)


def covered_part(area: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Rows and columns that hold all of an area."""
    x, y, width, height = cv2.boundingRect(area)
    return slice(y, y + height), slice(x, x + width)
