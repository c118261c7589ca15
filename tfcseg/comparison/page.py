"""Write compare.html: the modes on the same video, their numbers, where they differ most."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tfcseg.comparison.plan import Comparison
from tfcseg.files import read_json_object
from tfcseg.report.html import write_html
from tfcseg.report.player import SERIES, ThinnedSeries, View, lanes, new_timeline, player_data, source_view


def write_page(path: Path, comparison: Comparison) -> None:
    """Write the page of ``comparison`` beside its results, complete or not at all; OutputError on failure."""
    folder = path.parent
    context: dict[str, Any] = {
        "title": Path(comparison.input["path"]).resolve().name,
        "comparison": comparison,
        "table": _table(comparison),
        "pages": {
            name: f"{quote(output)}/{page}"
            for name, output in comparison.outputs.items()
            for page in ("report.html", "eval.html")
            if (folder / output / page).is_file()
        },
        "views": [],
    }
    data = None
    read = {mode: _read_frames(folder / mode) for mode in comparison.modes}
    frames = {mode: found for mode, found in read.items() if found is not None}
    if comparison.kind == "video" and frames:
        timeline, start_s = list(frames.values())[-1]
        views = _views(folder, comparison, start_s)
        drawn = lanes({mode: series for mode, (series, _) in frames.items()}, ("label_change", "flow_consistency"))
        height, width = comparison.resolution["source"]
        context |= {"views": views, "lanes": drawn, "frames": timeline.frames, "width": width, "height": height}
        data = player_data(views, drawn, timeline, Fraction(comparison.input["frame_rate"]))
    write_html(path, "compare.html", context, data)


def _read_frames(run: Path) -> tuple[ThinnedSeries, float] | None:
    """Series of a run's frames.csv, without changes at cuts, and the time of its first frame; None if there is none."""
    path = run / "frames.csv"
    if not path.is_file():
        return None
    has_cuts = read_json_object(run / "report.json")["stability"]["cuts"]
    timeline, start_s = new_timeline(), 0.0
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if timeline.frames == 0:
                start_s = float(row["time_s"])
            if has_cuts and not row["flow_consistency"]:
                row["label_change"] = ""
            timeline.add([float(row[name]) if row[name] else None for name in SERIES])
    return timeline, start_s


def _views(folder: Path, comparison: Comparison, start_s: float) -> list[View]:
    overlays = [
        View(mode, title, "video", f"{quote(mode)}/overlay.mp4")
        for mode, title in comparison.titles.items()
        if (folder / mode / "overlay.mp4").is_file()
    ]
    candidate, reference = comparison.ratio_of
    views = [view for view in (source_view(comparison.input["path"], folder, start_s),) if view is not None]
    views += overlays
    shown = {view.key for view in overlays}
    if candidate != reference and {candidate, reference} <= shown:
        views.append(View("wipe", f"{reference} | {candidate}", "wipe", of=(reference, candidate), is_first=True))
    views.append(View("side_by_side", "Side by side", "video", quote(comparison.outputs["side_by_side"])))
    return views


def _table(comparison: Comparison) -> list[dict[str, Any]]:
    """A row per metric that any mode has; ``is_best`` marks the best where modes can be ranked."""
    rows = []
    for metric, title, values in comparison.rows():
        texts = list(map(metric.shown, values.values()))
        measured = [value for value in values.values() if value is not None]
        is_ranked = metric.best is not None and len({*map(metric.shown, measured)}) > 1
        best = metric.shown(metric.best(measured)) if metric.best is not None and is_ranked else None
        cells = [{"text": text, "is_best": text == best} for text in texts]
        rows.append({"key": metric.key, "title": title, "cells": cells})
    return rows
