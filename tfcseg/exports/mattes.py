"""Mattes for compositing: per class a video white on black, and the source with everything else transparent.

Letters: H, W image height and width.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from tfcseg.errors import InputError
from tfcseg.exports.labelled_video import LabelledVideo
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Image
from tfcseg.media.masks import Labels
from tfcseg.media.writer import WITH_ALPHA, VideoWriter

_AT_ONCE = 4
"""Classes whose videos are encoded in one pass: bounds memory and processes, whatever the number of classes."""

_MARGIN_PX = 16
"""Width of the border around a class whose colours are kept, so that encoding does not darken its edge."""


def matte_names(labels: LabelSet, index: int) -> tuple[str, str]:
    """Names of the matte of a class and of its video with alpha: its name, in letters that every file system takes."""
    plain = [re.sub(r"[^\w-]+", "_", name).strip("_") or "class" for name in labels.names]
    folded = [name.casefold() for name in plain]
    stem = plain[index] if Counter(folded)[folded[index]] == 1 else f"{plain[index]}_{index}"
    return f"matte_{stem}.mp4", f"matte_{stem}.webm"


def write_mattes(
    video: LabelledVideo,
    classes: Sequence[int],
    scratch: Path,
    folder: Path,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Write the mattes of ``classes`` to ``scratch``, from where they will go to ``folder``; returns their names.

    ``on_frame`` is called with the number of finished frames, and of all, summed over passes.
    """
    frames = len(video.masks)
    passes = range(0, len(classes), _AT_ONCE)
    for number, first in enumerate(passes):
        some = classes[first : first + _AT_ONCE]
        for done in _write_some(video, some, scratch, folder):
            on_frame(number * frames + done, len(passes) * frames)
    return [name for index in classes for name in matte_names(video.labels, index)]


def _write_some(video: LabelledVideo, classes: Sequence[int], scratch: Path, folder: Path) -> Iterator[int]:
    """Yields how many frames are done."""
    with ExitStack() as stack:
        images = stack.enter_context(video.open_images())
        writers = []
        for index in classes:
            white, alpha = matte_names(video.labels, index)
            matte = stack.enter_context(VideoWriter(scratch / white, named=folder / white, **video.encoding))
            cutout = stack.enter_context(
                VideoWriter(scratch / alpha, WITH_ALPHA, named=folder / alpha, **video.encoding)
            )
            writers.append((index, matte, cutout))
        for number, labels in enumerate(video.read_labels()):
            image = _next_image(images, number, len(video.masks), video.size)
            for index, matte, cutout in writers:
                mask = np.multiply(labels == index, 255, dtype=np.uint8)
                matte.write(cv2.merge([mask, mask, mask]))
                cutout.write(cut_out(image, mask))
            yield number + 1


def cut_out(image: Image, mask: Labels) -> Image:
    """(H, W, 4) RGBA of (H, W, 3) ``image``, opaque where (H, W) ``mask`` is 255; black far from there."""
    side = 2 * _MARGIN_PX + 1
    near = cv2.dilate(mask, np.ones((side, side), np.uint8))
    return np.dstack([cv2.bitwise_and(image, image, mask=near), mask])


def _next_image(images: Iterator[Image], number: int, frames: int, size: tuple[int, int]) -> Image:
    image = next(images, None)
    if image is None:
        raise InputError(f"the source ends after {number} frames, there are masks of {frames}; is it the same video?")
    if image.shape[:2] != size:
        found, wanted = (f"{width}×{height}" for height, width in (image.shape[:2], size))
        raise InputError(f"frame {number} of the source is {found}, its mask {wanted}; is it the same video?")
    return image
