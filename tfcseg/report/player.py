"""Data for the player of a page: videos, masks and the timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from tfcseg.report.html import relative_url
from tfcseg.report.json_file import to_json
from tfcseg.report.thinning import ThinnedSeries

SERIES = ("label_change", "flow_consistency", "similarity", "updated_fraction", "unsure", "is_keyframe")
"""Columns of a timeline, in order; all are columns of frames.csv."""

COLUMNS = 1024
"""Buckets of a timeline; there may be up to twice as many."""

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
    """``video``, ``images`` (a folder of masks by number) or ``wipe`` (one video over another, up to a line)."""
    url: str = ""
    start_s: float = 0.0
    """Time of the first frame in the video."""
    of: tuple[str, ...] = ()
    """Keys of the videos of a wipe: left, right."""
    names: tuple[str, ...] = ()
    """Files of the images, if they are not numbered."""
    is_first: bool = False
    """Shown when the page opens."""


@dataclass(frozen=True, slots=True)
class Series:
    """A curve, or the range of values where buckets hold several frames (otherwise ``high`` is None)."""

    key: str
    title: str
    low: list[float]
    high: list[float] | None


@dataclass(frozen=True, slots=True)
class Lane:
    """One quantity over time."""

    key: str
    title: str
    meaning: str
    ideal: int
    scale: tuple[float, float]
    series: tuple[Series, ...]


def new_timeline() -> ThinnedSeries:
    """Timeline without frames."""
    return ThinnedSeries(len(SERIES), COLUMNS)


def lanes(
    timelines: Mapping[str, ThinnedSeries], keys: Sequence[str] = tuple(_MEANINGS), meanings: Mapping[str, str] = {}
) -> list[Lane]:
    """Lanes of the quantities ``keys`` that were measured; a series for each of ``timelines``, titled by its name.

    ``meanings`` replace those that quantities have in most runs.
    """
    found = []
    for key in keys:
        column = SERIES.index(key)
        series = [
            Series(name, name, line.low[:, column].tolist(), line.high[:, column].tolist() if is_thinned else None)
            for name, line in timelines.items()
            if not np.isnan(line.low[:, column]).all()
            for is_thinned in (line.frames_per_bucket > 1,)
        ]
        if series:
            title, meaning, ideal = _MEANINGS[key]
            least = min(float(np.nanmin(item.low)) for item in series)
            greatest = max(float(np.nanmax(item.high or item.low)) for item in series)
            scale = (least, 1.0) if ideal else (0.0, greatest)
            found.append(
                Lane(
                    key=key,
                    title=title,
                    meaning=meanings.get(key, meaning),
                    ideal=ideal,
                    scale=scale,
                    series=tuple(series),
                )
            )
    return found


def player_data(
    views: Sequence[View], lanes: Sequence[Lane], timeline: ThinnedSeries, frame_rate: Fraction, **more: object
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
        },
        decimals=5,
    )


def source_view(path: str, folder: Path, start_s: float) -> View | None:
    """View of the source itself for a page in ``folder``, if it is a file that a browser may play."""
    source = Path(path)
    if source.suffix.lower() not in _PLAYABLE or not source.is_file():
        return None
    return View("source", "Source", "video", relative_url(path, folder), start_s)
