"""Clips of one interval from a folder in VSPW layout, with dense labels (the paper's training data)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.evaluation.vspw import VspwDataset, VspwFrame, read_target
from tfcseg.training.augment import View, view_hard_labels, view_image
from tfcseg.training.damage import examine, image_defect
from tfcseg.training.datasets import Sample
from tfcseg.training.labelling import read_rgb
from tfcseg.training.vspw_views import crop_view, draw_vspw_view


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
        self._crop = crop
        self._length = length
        self._short_side_px = short_side_px
        self._is_augmented = is_augmented
        self._classes = len(dataset.labels)
        self._runs = [run for run in sound.runs if len(run) >= length]
        if not self._runs:
            raise DataError(f"{dataset.root}: no video of split {dataset.split} has {length} labelled frames in a row")
        self._ends = np.cumsum([len(run) - length + 1 for run in self._runs])

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a clip, whose first frame is the keyframe.

        The paper does not say how it samples clips. Here all clips of the split are equally likely, so longer videos
        are drawn more often.
        """
        number = int(rng.integers(self._ends[-1]))
        which = int(np.searchsorted(self._ends, number, side="right"))
        run = self._runs[which]
        first = number - int(self._ends[which]) + len(run) - self._length + 1
        frames = run[first : first + self._length]
        images = [read_rgb(image) for image, _ in frames]
        targets = [read_target(mask, self._classes)[0] for _, mask in frames]
        view = self._view(rng, targets[0])
        labels = [view_hard_labels(target, view) for target in targets]
        pixels = np.stack([view_image(image, view) for image in images])
        return Sample(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.stack(labels)))

    def _view(self, rng: np.random.Generator, labels: NDArray[np.uint8]) -> View:
        if self._is_augmented:
            return draw_vspw_view(rng, labels, self._crop, self._short_side_px)
        return crop_view(labels.shape, self._crop, self._short_side_px, tuple(rng.random(2)), is_flipped=False)


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
    for kind, path in (("image", frame.image), ("mask", frame.mask)):
        defect = "missing" if path is None else image_defect(path)
        if defect:
            return f"{kind} {defect}"
    try:
        with PIL.Image.open(frame.image) as image, PIL.Image.open(frame.mask) as mask:  # type: ignore[arg-type]
            kind, mask_size, image_size = mask.mode, mask.size, image.size
    except (OSError, SyntaxError, ValueError):
        return "image or mask has a damaged header"
    if kind not in {"L", "P"}:
        return "mask is a colour picture"
    if mask_size != image_size:
        return f"mask is {mask_size[0]}×{mask_size[1]}, its image {image_size[0]}×{image_size[1]}"
    return None
