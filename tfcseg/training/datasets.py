"""Clips of one interval as tensors, drawn from photos and videos. A still is a clip of one frame.

Shapes: T frames of a clip, K classes, S crop side, s = S / 4. Sample number n is always the same clip, in every process
and after every restart: its random numbers are seeded with (seed, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tfcseg.errors import DataError
from tfcseg.labels.label_sets import SCENES
from tfcseg.media.images import read_image
from tfcseg.training.augment import View, by_channels, distort_colours, draw_view, view_image, view_soft_labels
from tfcseg.training.foreground import Photo, add_foreground
from tfcseg.training.labelling import Taught
from tfcseg.training.pseudo_clips import Labelled, pseudo_clip

_MAX_STEP = 2
_T = TypeVar("_T")


class Sample(NamedTuple):
    """One clip: images (T, 3, S, S) uint8 RGB and its labels, soft (T, K, s, s) uint8 or hard (T, S, S) uint8."""

    images: Tensor
    labels: Tensor


class Source(Protocol):
    """Something to draw clips from."""

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a random clip."""


class Weighted(Generic[_T]):
    """Items to draw in proportion to ``weights``, by default all equally often."""

    def __init__(self, items: Sequence[_T], weights: NDArray[np.float64] | None = None) -> None:
        self._items = items
        shares = np.ones(len(items)) if weights is None else weights
        self._until = np.cumsum(shares) / shares.sum()

    def draw(self, rng: np.random.Generator) -> _T:
        """Draw one item."""
        return self._items[int(np.searchsorted(self._until, rng.random(), side="right"))]


class SampleStream(Dataset[Sample]):
    """``count`` numbered samples from several sources, drawn in proportion to ``shares``."""

    def __init__(self, sources: Sequence[Source], shares: Sequence[float], *, count: int, seed: int) -> None:
        self._sources = Weighted(sources, np.array(shares))
        self._count, self._seed = count, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Sample:
        rng = np.random.default_rng((self._seed, number))
        return self._sources.draw(rng).draw(rng)


@dataclass(frozen=True, slots=True)
class StillSource:
    """Random views of labelled stills, as clips of one frame.

    People of ``people`` and plants of ``plants``, by default of all stills, may be pasted into others.
    """

    stills: Weighted[Taught]
    crop: int
    people: Weighted[Taught] | None = None
    plants: Weighted[Taught] | None = None

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a view of a still."""
        image, labels = self.draw_view(rng)
        return _sample([image], [labels])

    def draw_view(self, rng: np.random.Generator) -> Labelled:
        """Draw an image (S, S, 3) and its soft labels (s, s, K); SCENES have things put in front."""
        (sharp, soft), view = self._draw_sharp(rng)
        if soft.shape[-1] == len(SCENES):
            add_foreground(
                Photo(rng, sharp, soft),
                draw_donor=lambda: _read(self.stills.draw(rng)),
                draw_people=lambda: _read((self.people or self.stills).draw(rng)),
                draw_plants=lambda: _read((self.plants or self.stills).draw(rng)),
                draw_backdrop=lambda: self._draw_sharp(rng)[0],
            )
        return distort_colours(sharp, view), soft

    def _draw_sharp(self, rng: np.random.Generator) -> tuple[Labelled, View]:
        """Draw a still as a view shows it, but without distortion of colours, and the view."""
        image, labels = _read(self.stills.draw(rng))
        view = draw_view(rng, image.shape[:2], self.crop)
        sharp = view_image(image, View(view.matrix, self.crop))
        return (sharp, view_soft_labels(labels, image.shape[:2], view)), view


@dataclass(frozen=True, slots=True)
class CollageSource:
    """Four stills at half their size in one sample, which makes small objects more frequent."""

    stills: StillSource

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw four views and arrange them two by two."""
        images, labels = zip(*(self.stills.draw_view(rng) for _ in range(4)), strict=True)
        return _sample([_collage(images)], [_collage(labels)])


class ClipSource:
    """Runs of ``length`` frames of real videos, with a varying step between frames, so that motion varies."""

    def __init__(
        self, clips: Sequence[Taught], crop: int, length: int, weights: NDArray[np.float64] | None = None
    ) -> None:
        is_long = np.array([len(clip.frames) >= length for clip in clips], np.float64)
        if not is_long.any():
            raise DataError(f"no video has {length} frames to train on")
        self._clips = Weighted(clips, is_long if weights is None else is_long * weights)
        self._crop = crop
        self._length = length

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a run of a clip, all frames through the same view."""
        clip = self._clips.draw(rng)
        longest = (len(clip.frames) - 1) // max(1, self._length - 1)
        step = int(rng.integers(1, min(_MAX_STEP, max(1, longest)) + 1))
        first = int(rng.integers(0, len(clip.frames) - step * (self._length - 1)))
        numbers = [first + step * i for i in range(self._length)]
        if rng.random() < 0.5:
            numbers.reverse()
        images = [read_image(clip.frames[n]) for n in numbers]
        size = images[0].shape[:2]
        view = draw_view(rng, size, self._crop)
        labels = np.load(clip.labels, mmap_mode="r")
        soft = [view_soft_labels(np.array(labels[n]), size, view) for n in numbers]
        return _sample([view_image(image, view) for image in images], soft)


@dataclass(frozen=True, slots=True)
class PseudoClipSource:
    """Clips made from stills: a moving crop, and an object of another still that moves. Labels are exact in time."""

    stills: Weighted[Taught]
    crop: int
    length: int

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a scene and an object, and make a clip of them."""
        scene, donor = (_read(self.stills.draw(rng)) for _ in range(2))
        return _sample(*pseudo_clip(rng, scene, donor, self.crop, self.length))


def _read(still: Taught) -> Labelled:
    return read_image(still.source), np.load(still.labels)


def _collage(quarters: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Four (S, S, C), S even, as one of the same shape; each is halved by averaging 2×2 pixels."""
    half_wh = (quarters[0].shape[1] // 2, quarters[0].shape[0] // 2)
    shrink = partial(cv2.resize, dsize=half_wh, interpolation=cv2.INTER_AREA)
    halved = [by_channels(shrink, quarter) for quarter in quarters]
    return np.concatenate([np.concatenate(halved[:2], 1), np.concatenate(halved[2:], 1)])


def _sample(images: Sequence[NDArray[np.uint8]], soft: Sequence[NDArray[np.uint8]]) -> Sample:
    """T images (S, S, 3) and T soft labels (s, s, K) as a sample."""
    return Sample(*(torch.from_numpy(np.stack(each).transpose(0, 3, 1, 2).copy()) for each in (images, soft)))
