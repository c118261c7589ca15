"""Thin out long series: keep minimum, maximum and mean of every few frames, so that no peak is lost.

Letters: n buckets, S series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ThinnedSeries:
    """Takes frames one by one; holds at most ``2 * columns`` buckets, whose length doubles when they are full.

    Up to that many frames nothing is thinned: each frame is a bucket.
    """

    def __init__(self, series: int, columns: int) -> None:
        shape = (2 * columns, series)
        self.frames = 0
        self.frames_per_bucket = 1
        self._low, self._high = np.full(shape, np.nan), np.full(shape, np.nan)
        self._total, self._count = np.zeros(shape), np.zeros(shape, np.int64)

    def add(self, values: Sequence[float | None] | NDArray[np.float64]) -> None:
        """Append a frame: one value per series; None and NaN are frames that were not measured."""
        bucket = self.frames // self.frames_per_bucket
        if bucket == len(self._low):
            self._halve()
            bucket //= 2
        row = np.array(values, dtype=np.float64)  # None becomes NaN
        self._low[bucket] = np.fmin(self._low[bucket], row)
        self._high[bucket] = np.fmax(self._high[bucket], row)
        is_measured = ~np.isnan(row)
        self._total[bucket, is_measured] += row[is_measured]
        self._count[bucket] += is_measured
        self.frames += 1

    @property
    def low(self) -> NDArray[np.float64]:
        """(n, S) least value of each bucket; NaN where nothing was measured, here as below."""
        return self._low[: self._used]

    @property
    def high(self) -> NDArray[np.float64]:
        """(n, S) greatest value of each bucket."""
        return self._high[: self._used]

    @property
    def mean(self) -> NDArray[np.float64]:
        """(n, S) mean of each bucket."""
        count = self._count[: self._used]
        return np.where(count > 0, self._total[: self._used] / np.maximum(count, 1), np.nan)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays from which an object of equal size ``load``s the same state."""
        arrays = {name: array[: self._used] for name, array in self._arrays().items()}
        return {"frames": np.array([self.frames, self.frames_per_bucket]), **arrays}

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Continue from ``state``; KeyError or ValueError if it does not fit."""
        self.frames, self.frames_per_bucket = (int(number) for number in state["frames"])
        for name, array in self._arrays().items():
            array[: self._used] = state[name]

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {"low": self._low, "high": self._high, "total": self._total, "count": self._count}

    @property
    def _used(self) -> int:
        return -(-self.frames // self.frames_per_bucket)

    def _halve(self) -> None:
        half = len(self._low) // 2
        for array, merge in ((self._low, np.fmin), (self._high, np.fmax), (self._total, np.add), (self._count, np.add)):
            array[:half] = merge(array[0::2], array[1::2])
        self._low[half:] = self._high[half:] = np.nan
        self._total[half:] = self._count[half:] = 0
        self.frames_per_bucket *= 2
