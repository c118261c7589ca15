"""Write report.html: video, timeline, least stable moments, classes over time.

Pictures, data, style and script are inside the file; videos and masks are referenced beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from tfcseg.report.html import relative_url, write_html
from tfcseg.report.moments import Moment, picture_size
from tfcseg.report.player import View, lanes, player_data, source_view
from tfcseg.report.recorder import PageRecorder
from tfcseg.report.schema import Report

_STEADY_MEANINGS = {
    "similarity": "likeness of the features of frames up to three apart, along the motion",
    "updated_fraction": "pixels whose class is not that of the mask that was given",
}

_CLASSES_DRAWN = 11  # classes with their own area over time; the others share one


def write_page(path: Path, report: Report, recorder: PageRecorder, mask_names: Sequence[str] = ()) -> None:
    """Write the page of a finished run, complete or not at all; OutputError on failure.

    Its source is at ``report.input.path``, from the current folder. ``mask_names``: files of masks, if not numbered.
    """
    classes = _classes(report, recorder)
    views = _views(path.parent, report, recorder.start_s, tuple(map(quote, mask_names)))
    drawn = lanes({"": recorder.timeline}, meanings=_STEADY_MEANINGS if report.steady else {})
    name, source = report.input.path, Path(report.input.path)
    title = "/".join(source.parts[-2:]) if source.is_dir() else source.name  # folders are often called "images"
    context = {
        "title": name if "://" in name else title or name,  # the end of an address may be a port alone
        "report": report,
        "frame_rate": float(recorder.frame_rate),
        "frames": recorder.frames,
        "lanes": drawn,
        "classes": classes,
        "moments": [_moment(each, report, recorder) for each in recorder.greatest("moment")],
        "doubts": [_moment(each, report, recorder) for each in recorder.greatest("doubt")],
        "picture_wh": picture_size((report.input.height, report.input.width))[::-1],
        "views": views,
        "has_source": any(view.key == "source" for view in views),
    }
    mean: NDArray[np.float64] = recorder.shares.mean
    values = [np.round(mean[:, entry["index"]], 4).tolist() for entry in classes]
    shares = {"bucket": recorder.shares.frames_per_bucket, "drawn": _CLASSES_DRAWN, "values": values}
    data = player_data(views, drawn, recorder.timeline, recorder.frame_rate, shares=shares)
    write_html(path, "run.html", context, data)


def _views(folder: Path, report: Report, start_s: float, mask_names: tuple[str, ...]) -> list[View]:
    outputs = {key: quote(name) for key, name in report.outputs.items()}
    source = (
        View("source", "Source", "video", outputs["source"])
        if "source" in outputs
        else source_view(report.input.path, folder, start_s)
    )
    views = [source] if source is not None else []
    if "overlay" in outputs:
        views.append(View("overlay", "Overlay", "video", outputs["overlay"], is_first=True))
        if source is not None:
            views.append(View("wipe", "Wipe", "wipe", of=("source", "overlay")))
    if "side_by_side" in outputs:
        views.append(View("side_by_side", "Side by side", "video", outputs["side_by_side"]))
    if "masks" in outputs:
        masks = View("masks", "Masks", "images", outputs["masks"], names=mask_names)
        if report.steady is None:
            return [*views, masks]
        given = View("given", "Given masks", "images", relative_url(report.steady.masks, folder), names=mask_names)
        # The wipe first: it shows what has changed.
        views += [View("steadied", "Before, after", "wipe", of=("given", "masks")), given, masks]
    return views


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


def _moment(moment: Moment, report: Report, recorder: PageRecorder) -> dict[str, Any]:
    names = {entry.index: entry.name for entry in report.classes}
    return {
        "frame": moment.index,
        "time_s": float(moment.index / recorder.frame_rate),
        "share": moment.share,
        "notes": [
            (" → ".join(dict.fromkeys(names.get(index, "none") for index in (before, after))), share)
            for before, after, share in moment.changes
        ],
        "pictures": moment.pictures,
    }
