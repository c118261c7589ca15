"""What training sees: clips of one interval, as tensors. A still is a clip of one frame.

Shapes: T frames of a clip, K classes, S crop side, s = S / 4. Sample number n always gives the same clip, whichever
process asks for it and however often training was stopped: its random numbers are seeded with (seed, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tfcseg.errors import DataError
from tfcseg.training.augment import draw_view, view_image, view_soft_labels
from tfcseg.training.labelling import Clip, Still, read_rgb
from tfcseg.training.pseudo_clips import pseudo_clip, steady_pair

UNKNOWN_MOTION = torch.full((2, 3), torch.nan)
_MAX_STEP = 2


class Sample(NamedTuple):
    """One clip: images (T, 3, S, S) uint8 RGB and its labels, soft (T, K, s, s) uint8 or hard (T, S, S) uint8."""

    images: Tensor
    labels: Tensor
    motion: Tensor = UNKNOWN_MOTION
    """(2, 3) from pixels (x, y, 1) of the second image to pixels of the first; NaN if nobody knows."""


class Source(Protocol):
    """Something that clips can be drawn from."""

    def draw(self, rng: np.random.Generator) -> Sample:
        """A random clip."""


class SampleStream(Dataset[Sample]):
    """``count`` numbered samples from several sources, drawn in proportion to ``shares``."""

    def __init__(self, sources: Sequence[Source], shares: Sequence[float], *, count: int, seed: int) -> None:
        self._sources = sources
        self._shares = np.array(shares) / sum(shares)
        self._count = count
        self._seed = seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Sample:
        rng = np.random.default_rng((self._seed, number))
        return self._sources[rng.choice(len(self._sources), p=self._shares)].draw(rng)


class StillSource:
    """Random views of labelled stills, as clips of one frame; ``weights`` say how often each is drawn (all alike)."""

    def __init__(self, stills: Sequence[Still], crop: int, weights: NDArray[np.float64] | None = None) -> None:
        self._stills = stills
        self._crop = crop
        self._until = _until(len(stills), weights)

    def draw(self, rng: np.random.Generator) -> Sample:
        """A view of a random still."""
        still = self._stills[int(np.searchsorted(self._until, rng.random(), side="right"))]
        image = read_rgb(still.image)
        view = draw_view(rng, (image.shape[0], image.shape[1]), self._crop)
        soft = view_soft_labels(np.load(still.labels), (image.shape[0], image.shape[1]), view)
        return _to_sample([view_image(image, view)], [soft])


class CollageSource:
    """Four stills of another source at half their size in one sample: small things become common."""

    def __init__(self, stills: StillSource) -> None:
        self._stills = stills

    def draw(self, rng: np.random.Generator) -> Sample:
        """A sample of four random views, two by two."""
        views = [self._stills.draw(rng) for _ in range(4)]
        return Sample(_collage([view.images for view in views]), _collage([view.labels for view in views]))


class PairSource:
    """Two images of a labelled still a moment apart; ``weights`` say how often each still is drawn (all alike)."""

    def __init__(self, stills: Sequence[Still], crop: int, weights: NDArray[np.float64] | None = None) -> None:
        self._stills = stills
        self._crop = crop
        self._until = _until(len(stills), weights)

    def draw(self, rng: np.random.Generator) -> Sample:
        """A pair of a random still."""
        still = self._stills[int(np.searchsorted(self._until, rng.random(), side="right"))]
        images, soft, motion = steady_pair(rng, (read_rgb(still.image), np.load(still.labels)), self._crop)
        return _to_sample(images, soft)._replace(motion=torch.from_numpy(motion).float())


class ClipSource:
    """Runs of ``length`` frames of real videos; the step between frames varies, so motion does."""

    def __init__(self, clips: Sequence[Clip], crop: int, length: int, max_step: int = 2) -> None:
        self._clips = [clip for clip in clips if len(clip.frames) >= length]
        self._crop = crop
        self._length = length
        self._max_step = max_step
        if not self._clips:
            raise DataError(f"no video has {length} frames to train on")

    def draw(self, rng: np.random.Generator) -> Sample:
        """A run of one random clip, every frame through the same view."""
        clip = self._clips[rng.integers(len(self._clips))]
        fitting = (len(clip.frames) - 1) // max(1, self._length - 1)
        step = int(rng.integers(1, min(self._max_step, max(1, fitting)) + 1))
        first = int(rng.integers(0, len(clip.frames) - step * (self._length - 1)))
        numbers = [first + step * i for i in range(self._length)]
        if rng.random() < 0.5:
            numbers.reverse()
        images = [read_rgb(clip.frames[n]) for n in numbers]
        size = (images[0].shape[0], images[0].shape[1])
        view = draw_view(rng, size, self._crop)
        labels = np.load(clip.labels, mmap_mode="r")
        soft = [view_soft_labels(np.array(labels[n]), size, view) for n in numbers]
        return _to_sample([view_image(image, view) for image in images], soft)


class PseudoClipSource:
    """Clips made from stills, a moving crop with pasted moving objects: their labels are exact in time."""

    def __init__(self, stills: Sequence[Still], crop: int, length: int) -> None:
        self._stills = stills
        self._crop = crop
        self._length = length

    def draw(self, rng: np.random.Generator) -> Sample:
        """A pseudo-clip over one still, with an object of another."""
        scene, donor = (self._stills[i] for i in rng.integers(len(self._stills), size=2))
        images, soft = pseudo_clip(
            rng,
            (read_rgb(scene.image), np.load(scene.labels)),
            (read_rgb(donor.image), np.load(donor.labels)),
            self._crop,
            self._length,
        )
        return _to_sample(images, soft)


def _collage(quarters: Sequence[Tensor]) -> Tensor:
    """Four (1, C, S, S) uint8, S even, as one of the same shape: each is the mean of its 2×2 pixels."""
    halved = [torch.nn.functional.avg_pool2d(quarter.float(), 2).round().byte() for quarter in quarters]
    return torch.cat([torch.cat(halved[:2], -1), torch.cat(halved[2:], -1)], -2)


def _until(count: int, weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Cumulated shares of ``count`` stills, which a number from 0 to 1 falls into."""
    shares = np.ones(count) if weights is None else weights
    return np.asarray(np.cumsum(shares) / shares.sum(), np.float64)


def _to_sample(images: Sequence[NDArray[np.uint8]], soft: Sequence[NDArray[np.uint8]]) -> Sample:
    """T images (S, S, 3) and T soft labels (s, s, K) as a sample."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return Sample(stacked.contiguous(), torch.from_numpy(np.stack(soft)).permute(0, 3, 1, 2).contiguous())
