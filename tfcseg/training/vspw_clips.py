"""Clips of one interval from a folder in VSPW layout, with its own dense labels (the paper's training data)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch

from tfcseg.errors import DataError
from tfcseg.evaluation.vspw import VspwDataset, VspwFrame, read_target
from tfcseg.training.augment import draw_view, view_hard_labels, view_image
from tfcseg.training.damage import examine, image_defect
from tfcseg.training.datasets import Sample
from tfcseg.training.labelling import read_rgb


class Sound(NamedTuple):
    """What can be trained on: runs of (image, mask) pairs without a gap, and what is left out, one line each."""

    runs: list[list[tuple[Path, Path]]]
    defects: list[str]


class VspwClipSource:
    """Clips of ``length`` frames that follow each other without a gap, one crop for the whole clip."""

    def __init__(self, dataset: VspwDataset, sound: Sound, crop: int, length: int) -> None:
        self._crop = crop
        self._length = length
        self._classes = len(dataset.labels)
        self._runs = [run for run in sound.runs if len(run) >= length]
        if not self._runs:
            raise DataError(f"{dataset.root}: no video of split {dataset.split} has {length} labelled frames in a row")

    def draw(self, rng: np.random.Generator) -> Sample:
        """A random run of a random video, in either direction."""
        run = self._runs[rng.integers(len(self._runs))]
        first = int(rng.integers(0, len(run) - self._length + 1))
        frames = run[first : first + self._length]
        if rng.random() < 0.5:
            frames = frames[::-1]
        images = [read_rgb(image) for image, _ in frames]
        view = draw_view(rng, (images[0].shape[0], images[0].shape[1]), self._crop)
        labels = [view_hard_labels(read_target(mask, self._classes)[0], view) for _, mask in frames]
        pixels = np.stack([view_image(image, view) for image in images])
        return Sample(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.stack(labels)))


def find_sound_frames(dataset: VspwDataset) -> Sound:
    """Examine every frame of a split: missing, empty and cut files, masks of another kind or size than their image."""
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
