"""Random views of a scene: a crop with its own geometry and colours.

A view is drawn once per clip and applied to all of its frames and labels, so images and labels stay aligned and only
the scene changes between frames. Pixel centres have integer coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.labels.label_sets import NO_CLASS

LABEL_STRIDE = 4
"""Stride of the network's logits, at which labels are sampled."""

SHORT_SIDE_RANGE_PX = (300, 1050)
"""Range of the scene's short side after scaling (log-uniform); their mean is near the 544 of inference."""

_MOST_CHANNELS = 128
"""OpenCV 5 takes no more: given more, it reads beyond the array without an error."""

MOTION_SHARE, MOTION_RANGE_PX = 0.25, (3, 32)
"""Share of views with motion blur, as in videos, and its length (log-uniform). Else blurred grass is taken for fur."""


@dataclass(frozen=True, slots=True)
class View:
    """A crop of ``size`` px: output position (x, y) shows source position ``matrix @ (x, y, 1)``."""

    matrix: NDArray[np.float64]
    size: int
    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue_shift: int = 0
    blur_px: float = 0.0
    motion_px: tuple[float, float] = (0.0, 0.0)
    """(x, y) by which the camera moves while the shutter is open."""
    noise: float = 0.0
    """Standard deviation, of 255."""
    noise_seed: int = 0
    jpeg_quality: int | None = None


def draw_view(rng: np.random.Generator, source: Sequence[int], size: int) -> View:
    """Draw a view of a source of (height, width): zoom, aspect, position, flip, a small rotation, and distortions.

    Each kind of photometric distortion is applied independently of the others.
    """
    maybe = partial(draw_at_times, rng)
    height, width = source
    step = min(source) / log_uniform(rng, SHORT_SIDE_RANGE_PX)  # source px per output px
    aspect = np.exp(rng.uniform(-0.2, 0.2))
    angle = rng.normal(0.0, 0.06)
    flip = -1.0 if rng.random() < 0.5 else 1.0
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = step * linear @ np.diag([flip * aspect, 1.0 / aspect])
    # Keep the centre so far inside that the crop shows as little as possible beyond the border.
    reach = np.abs(linear) @ np.full(2, size / 2)
    centre = [
        rng.uniform(min(r, side / 2), max(side - r, side / 2)) for r, side in zip(reach, (width, height), strict=True)
    ]
    offset = np.array(centre) - 0.5 - linear @ np.full(2, (size - 1) / 2)
    return View(
        np.column_stack([linear, offset]),
        size,
        brightness=maybe(0.5, -48, 48, 0.0),
        contrast=maybe(0.5, 0.5, 1.6, 1.0),
        saturation=maybe(0.5, 0.5, 1.5, 1.0) if rng.random() > 0.05 else 0.0,
        hue_shift=round(maybe(0.3, -9, 9, 0.0)),
        blur_px=maybe(0.2, 0.4, 4.0, 0.0),
        jpeg_quality=int(rng.integers(8, 80)) if rng.random() < 0.25 else None,
        motion_px=_draw_motion(rng) if rng.random() < MOTION_SHARE else (0.0, 0.0),
        noise=maybe(0.25, 2, 20, 0.0),
        noise_seed=int(rng.integers(2**31)),
    )


def draw_at_times(rng: np.random.Generator, share: float, low: float, high: float, neutral: float) -> float:
    """Draw a number between two, in a ``share`` of the calls; otherwise it is ``neutral``."""
    return float(rng.uniform(low, high)) if rng.random() < share else neutral


def log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """Draw a number between two positive ones, whose logarithm is uniform."""
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _draw_motion(rng: np.random.Generator) -> tuple[float, float]:
    length, angle = log_uniform(rng, MOTION_RANGE_PX), rng.uniform(0, np.pi)
    return float(length * np.cos(angle)), float(length * np.sin(angle))


def view_image(image: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """(H, W, 3) RGB → (size, size, 3) with the view's geometry and colours; grey beyond the border."""
    size = (view.size, view.size)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(image, view.matrix, size, flags=flags, borderValue=(124, 116, 104))
    return distort_colours(as_bytes(crop), view)


def distort_colours(crop: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """Apply the photometric part of a view to an RGB image of any size."""
    if view.contrast != 1.0 or view.brightness != 0.0:
        ramp = (np.arange(256) - 128.0) * view.contrast + 128.0 + view.brightness
        crop = as_bytes(cv2.LUT(crop, np.clip(np.rint(ramp), 0, 255).astype(np.uint8)))
    if view.saturation != 1.0 or view.hue_shift:
        hsv = cv2.cvtColor(crop, cv2.COLOR_RGB2HSV)
        hue = ((np.arange(256) + view.hue_shift) % 180).astype(np.uint8)
        saturation = np.clip(np.arange(256) * view.saturation, 0, 255).astype(np.uint8)
        value = np.arange(256, dtype=np.uint8)
        crop = as_bytes(cv2.cvtColor(cv2.LUT(hsv, np.stack([hue, saturation, value], -1)[None]), cv2.COLOR_HSV2RGB))
    if view.motion_px != (0.0, 0.0):
        crop = as_bytes(cv2.filter2D(crop, -1, _motion_kernel(view.motion_px), borderType=cv2.BORDER_REPLICATE))
    if view.blur_px:
        crop = as_bytes(cv2.GaussianBlur(crop, (0, 0), view.blur_px))
    if view.noise:
        # Another pattern for every frame of a clip, as in a camera, and the same one for the same frame.
        crop = add_noise(crop, seed=(view.noise_seed + int(crop[::16, ::16].sum())) % 2**31, deviation=view.noise)
    if view.jpeg_quality is not None:
        _, coded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, view.jpeg_quality])
        crop = as_bytes(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return crop


def add_noise(image: NDArray[np.uint8], *, seed: int, deviation: float) -> NDArray[np.uint8]:
    """Add sensor noise with a standard ``deviation``, of 255, to an image."""
    noise = np.empty(image.shape, np.int8)
    cv2.setRNGSeed(seed)
    # As one channel: of several, OpenCV would give noise to the first one alone.
    cv2.randn(noise.reshape(len(noise), -1), 0, deviation)  # type: ignore[call-overload]  # numbers are fine
    return as_bytes(cv2.add(image, noise, dtype=cv2.CV_8U))


def _motion_kernel(motion_px: tuple[float, float]) -> NDArray[np.float32]:
    """Kernel of a straight line of length and direction (x, y), sampled four times per pixel; its sum is 1."""
    reach = int(np.ceil(max(map(abs, motion_px)) / 2))
    count = int(np.ceil(4 * np.hypot(*motion_px))) + 1
    along = np.linspace(-0.5, 0.5, count)
    x, y = (np.rint(along * part).astype(np.intp) + reach for part in motion_px)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    np.add.at(kernel, (y, x), 1 / count)
    return kernel


def view_soft_labels(labels: NDArray[np.uint8], source: Sequence[int], view: View) -> NDArray[np.uint8]:
    """(G, G, K) soft labels of a source of (height, width) → (s, s, K) at the view's label grid.

    Beyond the border all K are 0: no label, which has weight 0 in the loss.
    """
    cells = view.size // LABEL_STRIDE
    grid_per_source = np.array([labels.shape[1] / source[1], labels.shape[0] / source[0]])
    linear, offset = view.matrix[:, :2], view.matrix[:, 2]
    centre = offset + linear @ np.full(2, (LABEL_STRIDE - 1) / 2)
    linear = grid_per_source[:, None] * linear * LABEL_STRIDE
    offset = grid_per_source * (centre + 0.5) - 0.5
    rows, columns = np.mgrid[0:cells, 0:cells].astype(np.float32)
    map_x = (linear[0, 0] * columns + linear[0, 1] * rows + offset[0]).astype(np.float32)
    map_y = (linear[1, 0] * columns + linear[1, 1] * rows + offset[1]).astype(np.float32)
    return by_channels(
        lambda some: cv2.remap(some, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0),
        labels,
    )


def view_hard_labels(labels: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """(H, W) class map → (size, size), nearest; NO_CLASS beyond the border."""
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return as_bytes(cv2.warpAffine(labels, view.matrix, (view.size, view.size), flags=flags, borderValue=NO_CLASS))


def by_channels(function: Callable[[NDArray[np.uint8]], object], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Apply a function of OpenCV to (h, w, K) ``labels``, to as many of the K classes at once as it takes."""
    parts = (as_bytes(function(labels[..., k : k + _MOST_CHANNELS])) for k in range(0, labels.shape[2], _MOST_CHANNELS))
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)


def as_bytes(pixels: object) -> NDArray[np.uint8]:
    """Type an array that OpenCV returned; its stubs do not state the dtype."""
    return np.asarray(pixels, np.uint8)
