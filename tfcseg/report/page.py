"""report.html: one run to look at. Video, timeline, the least stable moments, classes over time.

Pictures, data, style and script are inside the file; videos and masks are referenced beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from tfcseg.report.html import relative_url, write_html
from tfcseg.report.moments import Moment
from tfcseg.report.recorder import PICTURE_PX, SERIES, PageRecorder
from tfcseg.report.schema import Report, to_json

__all__ = ["Moment", "PageRecorder", "write_page"]

_PLAYABLE = (".mp4", ".m4v", ".mov", ".webm", ".ogv", ".mkv")
"""Containers that browsers may play; whether they do depends on what is inside, and the page says so if not."""

_CLASSES_DRAWN = 11
"""Classes with an area of their own over time; the others share one."""

_LANES = (
    ("label_change", "Label change", "pixels whose class differs from the frame before", 0),
    ("tc", "TC", "pixels whose class is kept along the optical flow", 1),
    ("similarity", "Similarity", "likeness of a frame's features to its keyframe's", 1),
    ("updated_fraction", "Recomputed", "points repaired by deformable attention", 0),
)
"""Key, title, meaning and ideal value of each lane of the timeline."""


def write_page(path: Path, report: Report, recorder: PageRecorder) -> None:
    """Write the page of a finished run, complete or not at all; OutputError if it cannot be written.

    Its source is looked for at ``report.input.path``, seen from the current folder.
    """
    moments = recorder.moments()
    classes = _classes(report, recorder)
    views = _views(path.parent, report, recorder.start_s)
    lanes = _lanes(recorder)
    context = {
        "title": Path(report.input.path).name or report.input.path,
        "report": report,
        "frame_rate": float(recorder.frame_rate),
        "frames": recorder.frames,
        "lanes": lanes,
        "classes": classes,
        "moments": [_moment(moment, report, recorder) for moment in moments],
        "picture_wh": _picture_size(report),
        "views": views,
    }
    data = {
        "frames": recorder.frames,
        "rate": float(recorder.frame_rate),
        "views": views,
        "bucket": recorder.timeline.frames_per_bucket,
        "lanes": [{key: lane[key] for key in ("key", "title", "ideal", "scale", "series")} for lane in lanes],
        "keyframes": _keyframes(recorder),
        "shares": _shares(recorder, classes),
    }
    write_html(path, "run.html", context, to_json(data, decimals=5))


def _picture_size(report: Report) -> tuple[int, int]:
    """(width, height) at which pictures of moments are shown at most: space for them before they are decoded."""
    scale = min(1.0, PICTURE_PX / max(report.input.width, report.input.height))
    return round(report.input.width * scale), round(report.input.height * scale)


def _views(folder: Path, report: Report, start_s: float) -> list[dict[str, Any]]:
    """What the stage can show; ``start_s`` is the time of the first frame in that video."""
    views: list[dict[str, Any]] = []
    source = Path(report.input.path)
    if source.suffix.lower() in _PLAYABLE and source.is_file():
        views.append(_view("source", "Source", relative_url(str(source), folder), start_s))
    for key, title in (("overlay", "Overlay"), ("side_by_side", "Side by side")):
        if key in report.outputs:
            views.append(_view(key, title, quote(report.outputs[key])))
    if "masks" in report.outputs:
        views.append(_view("masks", "Masks", quote(report.outputs["masks"]), kind="images"))
    return views


def _view(key: str, title: str, url: str, start_s: float = 0.0, kind: str = "video") -> dict[str, Any]:
    return {"key": key, "title": title, "url": url, "start_s": start_s, "kind": kind, "is_first": key == "overlay"}


def _lanes(recorder: PageRecorder) -> list[dict[str, Any]]:
    """Series that were measured at all, as extremes per bucket; ``high`` is None where buckets are frames."""
    timeline = recorder.timeline
    lanes = []
    for key, title, meaning, ideal in _LANES:
        column = SERIES.index(key)
        low, high = timeline.low[:, column], timeline.high[:, column]
        if np.isnan(low).all():
            continue
        extremes = (float(np.nanmin(low)), float(np.nanmax(high)))
        lanes.append(
            {
                "key": key,
                "title": title,
                "meaning": meaning,
                "ideal": ideal,
                "scale": (0.0, extremes[1]) if ideal == 0 else (extremes[0], 1.0),
                "series": [{"low": low.tolist(), "high": high.tolist() if timeline.frames_per_bucket > 1 else None}],
            }
        )
    return lanes


def _keyframes(recorder: PageRecorder) -> list[int]:
    """Buckets that hold a keyframe."""
    return [int(bucket) for bucket in np.flatnonzero(recorder.timeline.high[:, SERIES.index("is_keyframe")] > 0)]


def _classes(report: Report, recorder: PageRecorder) -> list[dict[str, Any]]:
    """The classes of the video, greatest first."""
    ordered = sorted(report.classes, key=lambda entry: (-entry.share, entry.index))
    return [
        {
            "index": entry.index,
            "name": entry.name,
            "share": entry.share,
            "colour": "#{:02x}{:02x}{:02x}".format(*recorder.palette[entry.index].tolist()),
            "peak_share": float(recorder.peak_shares[entry.index]),
            "peak_frame": int(recorder.peak_frames[entry.index]),
        }
        for entry in ordered
    ]


def _shares(recorder: PageRecorder, classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean shares per bucket of ``classes``, in their order."""
    mean: NDArray[np.float64] = recorder.shares.mean
    return {
        "bucket": recorder.shares.frames_per_bucket,
        "drawn": _CLASSES_DRAWN,
        "values": [np.round(mean[:, entry["index"]], 4).tolist() for entry in classes],
    }


def _moment(moment: Moment, report: Report, recorder: PageRecorder) -> dict[str, Any]:
    names = {entry.index: entry.name for entry in report.classes}
    pictures = (
        ("source", "Frame", moment.source),
        ("before", "Labels before", moment.before),
        ("after", "Labels after", moment.after),
        ("changed", "What changed", moment.changed),
    )
    return {
        "frame": moment.index,
        "time_s": float(moment.index / recorder.frame_rate),
        "label_change": moment.label_change,
        "changes": [
            {"before": names.get(before, "none"), "after": names.get(after, "none"), "share": share}
            for before, after, share in moment.changes
        ],
        "pictures": [{"key": key, "title": title, "data": data} for key, title, data in pictures],
    }
