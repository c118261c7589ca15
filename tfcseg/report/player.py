"""Data for the player of a page: videos, masks and the timeline, thinned out so that no peak is lost.

Letters: n buckets, S series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.files import to_json
from tfcseg.report.html import relative_url

_MERGED = {"low": np.fmin, "high": np.fmax, "total": np.add, "count": np.add}
"""What a bucket has of each series, and how two buckets become one."""


class ThinnedSeries:
    """Takes frames one by one; holds at most ``2 * columns`` buckets, whose length doubles when they are full.

    Up to that many frames nothing is thinned: each frame is a bucket.
    """

    def __init__(self, series: int, columns: int) -> None:
        self.frames = 0
        self.frames_per_bucket = 1
        self._arrays = {
            name: np.full((2 * columns, series), np.nan if name in ("low", "high") else 0.0) for name in _MERGED
        }

    def add(self, values: Sequence[float | None] | NDArray[np.float64]) -> None:
        """Append a frame: one value per series; None and NaN are frames that were not measured."""
        bucket = self.frames // self.frames_per_bucket
        if bucket == len(self._arrays["low"]):
            self._halve()
            bucket //= 2
        row = np.array(values, dtype=np.float64)  # None becomes NaN
        added = {"low": row, "high": row, "total": np.nan_to_num(row), "count": ~np.isnan(row)}
        for name, merge in _MERGED.items():
            array = self._arrays[name]
            array[bucket] = merge(array[bucket], added[name])
        self.frames += 1

    @property
    def low(self) -> NDArray[np.float64]:
        """(n, S) least value of each bucket; NaN where nothing was measured, here as below."""
        return self._used("low")

    @property
    def high(self) -> NDArray[np.float64]:
        """(n, S) greatest value of each bucket."""
        return self._used("high")

    @property
    def mean(self) -> NDArray[np.float64]:
        """(n, S) mean of each bucket."""
        count = self._used("count")
        return np.where(count > 0, self._used("total") / np.maximum(count, 1), np.nan)

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Arrays from which an object of equal size ``load``s the same state; their names begin with ``prefix``."""
        arrays = {f"{prefix}_{name}": self._used(name) for name in _MERGED}
        return {f"{prefix}_frames": np.array([self.frames, self.frames_per_bucket]), **arrays}

    def load(self, state: Mapping[str, NDArray[Any]], prefix: str) -> None:
        """Continue from ``state``; KeyError or ValueError if it does not fit."""
        self.frames, self.frames_per_bucket = (int(number) for number in state[f"{prefix}_frames"])
        for name in _MERGED:
            self._used(name)[:] = state[f"{prefix}_{name}"]

    def _used(self, name: str) -> NDArray[np.float64]:
        return self._arrays[name][: -(-self.frames // self.frames_per_bucket)]

    def _halve(self) -> None:
        for name, merge in _MERGED.items():
            array = self._arrays[name]
            half = len(array) // 2
            array[:half] = merge(array[0::2], array[1::2])
            array[half:] = np.nan if name in ("low", "high") else 0
        self.frames_per_bucket *= 2


SERIES = ("label_change", "flow_consistency", "similarity", "updated_fraction", "unsure", "is_keyframe")
"""Columns of a timeline, in order; all are columns of frames.csv."""

_PLAYABLE = (".mp4", ".m4v", ".mov", ".webm", ".ogv", ".mkv")
"""Containers that browsers may play; that depends on their content, and the page says so if not."""

_MEANINGS = {
    "label_change": ("Label change", "pixels whose class differs from the frame before", 0),
    "unsure": ("Unsure", "pixels whose label is likely wrong", 0),
    "flow_consistency": ("Flow consistency", "pixels whose class is kept along the optical flow", 1),
    "similarity": ("Similarity", "how similar a frame's features are to its keyframe's", 1),
    "updated_fraction": ("Updated", "points between keyframes that were computed again", 0),
}
"""Title, meaning and ideal value of each lane."""


@dataclass(frozen=True, slots=True)
class View:
    """A view of the player."""

    key: str
    title: str
    kind: str
    """``video``, ``images`` (a folder of masks by number) or ``wipe`` (one of these over another, up to a line)."""
    url: str = ""
    start_s: float = 0.0  # time of the first frame in the video
    of: tuple[str, ...] = ()  # keys of the views of a wipe: left, right
    names: tuple[str, ...] = ()  # files of the images, if they are not numbered
    is_first: bool = False  # shown when the page opens


def new_timeline() -> ThinnedSeries:
    """Timeline without frames."""
    return ThinnedSeries(len(SERIES), columns=1024)


def lanes(
    timelines: Mapping[str, ThinnedSeries], keys: Sequence[str] = tuple(_MEANINGS), meanings: Mapping[str, str] = {}
) -> list[dict[str, Any]]:
    """Lanes of the quantities ``keys`` that were measured; a series for each of ``timelines``, titled by its name.
    Without updated points, there is no lane of them.

    A series is a curve, or a range where buckets hold several frames (otherwise ``high`` is None). ``meanings`` replace
    those that quantities have in most runs.
    """
    found = []
    for key in keys:
        column = SERIES.index(key)
        series: list[dict[str, Any]] = []
        extremes: list[float] = []
        for name, line in timelines.items():
            low, high = line.low[:, column], line.high[:, column]
            if not np.isnan(low).all():
                is_range = line.frames_per_bucket > 1
                series.append({"name": name, "low": low.tolist(), "high": high.tolist() if is_range else None})
                extremes += [float(np.nanmin(low)), float(np.nanmax(high))]
        if series and (key != "updated_fraction" or max(extremes) > 0):
            title, meaning, ideal = _MEANINGS[key]
            scale = (min(extremes), 1.0) if ideal else (0.0, max(extremes))
            lane = {"key": key, "title": title, "meaning": meanings.get(key, meaning), "ideal": ideal, "scale": scale}
            found.append({**lane, "series": series})
    return found


def player_data(
    views: Sequence[View], lanes: Sequence[object], timeline: ThinnedSeries, frame_rate: Fraction, **more: object
) -> object:
    """Data that the player's script reads; ``timeline`` says how long the video is and where keyframes are."""
    is_keyframe = timeline.high[:, SERIES.index("is_keyframe")] > 0
    return to_json(
        {
            "frames": timeline.frames,
            "rate": float(frame_rate),
            "bucket": timeline.frames_per_bucket,
            "keyframes": np.flatnonzero(is_keyframe).tolist(),
            "views": views,
            "lanes": lanes,
            **more,
        }
    )


def source_view(path: str, folder: Path, start_s: float) -> View | None:
    """View of the source itself for a page in ``folder``, if it is a file that a browser may play."""
    source = Path(path)
    if source.suffix.lower() not in _PLAYABLE or not source.is_file():
        return None
    return View("source", "Source", "video", relative_url(path, folder), start_s)
