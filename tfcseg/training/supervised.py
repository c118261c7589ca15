"""Supervised training on a VSPW folder, as in the paper: clips of one interval, and views of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.evaluation.vspw import VspwDataset, VspwFrame, open_vspw, read_target
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.media.images import read_image, read_size
from tfcseg.media.masks import read_header
from tfcseg.model.options import KEYFRAME_INTERVAL
from tfcseg.spelling import count_of
from tfcseg.training.augment import View, draw_at_times, view_hard_labels, view_image
from tfcseg.training.datasets import Sample
from tfcseg.training.labelling import defect_of, examine, mask_defect_of, refuse
from tfcseg.training.recipes import Material, TrainOptions


def vspw_material(root: Path, options: TrainOptions, *, skip_bad: bool) -> Material:
    """Clips of one interval from the train split; plain crops of the val split for validation."""
    train, validation = open_vspw(root, "train"), open_vspw(root, "val")
    found, held_out = find_sound_frames(train), find_sound_frames(validation)
    left_out = found.defects + held_out.defects
    if not skip_bad:
        refuse(left_out, str(root))
    length = 1 if options.stage == "image" else KEYFRAME_INTERVAL
    crop, size = options.crop, options.short_side_px
    clips = VspwClipSource(train, found, crop, length, short_side_px=size)
    plain = VspwClipSource(validation, held_out, crop, length, short_side_px=size, is_augmented=False)
    description = f"supervised on {root.resolve().name} ({count_of(len(train.videos), 'video')})"
    return Material([clips], [1.0], plain, train.labels, description, left_out=left_out)


class Sound(NamedTuple):
    """Runs of consecutive, undamaged (image, mask) pairs, and defects, one line each."""

    runs: list[list[tuple[Path, Path]]]
    defects: list[str]


class VspwClipSource:
    """Clips of ``length`` consecutive frames, one crop for the whole clip.

    ``short_side_px`` is the size at inference, around which the size of views varies. ``is_augmented=False`` draws
    plain crops at exactly this size, for validation.
    """

    def __init__(
        self,
        dataset: VspwDataset,
        sound: Sound,
        crop: int,
        length: int,
        *,
        short_side_px: int = 480,
        is_augmented: bool = True,
    ) -> None:
        self._crop, self._length = crop, length
        self._short_side_px, self._is_augmented = short_side_px, is_augmented
        self._classes = len(dataset.labels)
        self._starts = [(run, first) for run in sound.runs for first in range(len(run) - length + 1)]
        if not self._starts:
            raise DataError(f"{dataset.root}: no video of split {dataset.split} has {length} labelled frames in a row")

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a clip, whose first frame is the keyframe.

        The paper does not say how it samples. Here all clips are equally likely: longer videos are drawn more often.
        """
        run, first = self._starts[rng.integers(len(self._starts))]
        frames = run[first : first + self._length]
        images = [read_image(image) for image, _ in frames]
        targets = [read_target(mask, self._classes)[0] for _, mask in frames]
        crop, size = self._crop, self._short_side_px
        if self._is_augmented:
            view = draw_vspw_view(rng, targets[0], crop, size)
        else:
            view = crop_view(targets[0].shape, crop, size, tuple(rng.random(2)), is_flipped=False)
        labels = [view_hard_labels(target, view) for target in targets]
        pixels = np.stack([view_image(image, view) for image in images])
        return Sample(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.stack(labels)))


def find_sound_frames(dataset: VspwDataset) -> Sound:
    """Examine all frames of a split for missing or damaged files, and masks of the wrong kind or size."""
    runs: list[list[tuple[Path, Path]]] = []
    defects: list[str] = []
    for name in dataset.videos:
        video = dataset.read_video(name)
        if not video.frames:
            defects.append(f"{name}: no frames")
        runs.append([])
        found = examine(_defect, video.frames)
        for frame, missing, defect in zip(video.frames, video.missing_before, found, strict=True):
            if missing or defect:
                runs.append([])
            if defect:
                defects.append(f"{name}/{frame.stem}: {defect}")
            elif frame.image and frame.mask:
                runs[-1].append((frame.image, frame.mask))
    return Sound([run for run in runs if run], defects)


def _defect(frame: VspwFrame) -> str | None:
    if frame.image is None or frame.mask is None:
        return f"{'image' if frame.image is None else 'mask'} missing"
    if defect := defect_of(frame.image):
        return f"image {defect}"
    if defect := mask_defect_of(frame.mask):
        return defect
    (height, width), mask = read_size(frame.image), read_header(frame.mask).size
    return None if mask == (height, width) else f"mask is {mask[1]}×{mask[0]}, its image {width}×{height}"


RESIZE_RANGE = (0.5, 2.0)
"""Range of random resize (uniform), relative to the size at inference (480 px for the short side)."""

MOST_OF_ONE_CLASS = 0.75
"""A crop with a larger share of one class is drawn again (SegFormer's cat_max_ratio), at most CROP_TRIALS times."""

CROP_TRIALS = 10


def draw_vspw_view(rng: np.random.Generator, labels: NDArray[np.uint8], crop: int, short_side_px: int) -> View:
    """Draw a view of ``crop`` px for a clip whose keyframe has ``labels`` (H, W).

    ``short_side_px`` is that at inference. The keyframe decides whether there are enough classes; the paper names none.
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

    SegFormer adds brightness before contrast. A view has contrast around 128, so its brightness has the difference.
    """
    maybe = partial(draw_at_times, rng, 0.5)
    added, contrast = maybe(-32.0, 32.0, 0.0), maybe(0.5, 1.5, 1.0)
    return replace(
        view,
        contrast=contrast,
        brightness=contrast * added + 128.0 * (contrast - 1.0),
        saturation=maybe(0.5, 1.5, 1.0),
        hue_shift=round(maybe(-18.0, 18.0, 0.0)),
    )
