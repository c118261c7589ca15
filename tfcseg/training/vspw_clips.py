"""Clips of one interval from a folder in VSPW layout, with its own dense labels (the paper's training data)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tfcseg.errors import DataError
from tfcseg.evaluation.vspw import VspwDataset, VspwFrame, VspwVideo, read_target
from tfcseg.training.augment import draw_view, view_hard_labels, view_image
from tfcseg.training.datasets import Sample, read_rgb


class VspwClipSource:
    """Runs of ``length`` frames that follow each other without a gap, one crop for the whole clip."""

    def __init__(self, dataset: VspwDataset, crop: int, length: int) -> None:
        self._crop = crop
        self._length = length
        self._classes = len(dataset.labels)
        videos = [dataset.read_video(name) for name in dataset.videos]
        self._runs = [run for video in videos for run in _unbroken_runs(video) if len(run) >= length]
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


def check_frames(dataset: VspwDataset, limit: int = 20) -> None:
    """DataError naming up to ``limit`` defects (missing files, empty files, masks without their image)."""
    defects = []
    for name in dataset.videos:
        video = dataset.read_video(name)
        if not video.frames:
            defects.append(f"{name}: no frames")
        defects += [f"{name}/{frame.stem}: {reason}" for frame in video.frames if (reason := _defect(frame))]
    if defects:
        more = f" and {len(defects) - limit} more" if len(defects) > limit else ""
        raise DataError(f"{dataset.root}: {'; '.join(defects[:limit])}{more}; mend them or train with --skip-bad")


def _defect(frame: VspwFrame) -> str | None:
    for kind, path in (("image", frame.image), ("mask", frame.mask)):
        if path is None:
            return f"{kind} missing"
        if path.stat().st_size == 0:
            return f"{kind} is empty"
    return None


def _unbroken_runs(video: VspwVideo) -> list[list[tuple[Path, Path]]]:
    """Maximal runs of sound frames: (image, mask) pairs."""
    runs: list[list[tuple[Path, Path]]] = [[]]
    for frame, missing in zip(video.frames, video.missing_before, strict=True):
        if missing or _defect(frame):
            runs.append([])
        if frame.image and frame.mask and not _defect(frame):
            runs[-1].append((frame.image, frame.mask))
    return [run for run in runs if run]
