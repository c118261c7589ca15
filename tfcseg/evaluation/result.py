"""Result of an evaluation and its files: eval.json, per_class.csv, per_video.csv, and eval.html with pictures.

The page has bars per class, what is taken for what, the worst videos and frames. K classes, H W mask, h w picture.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import class_shares, covered, shrink_labels
from tfcseg.errors import InputError
from tfcseg.files import make_folder, replace_atomically, write_json
from tfcseg.labels.label_sets import NO_CLASS, LabelSet
from tfcseg.machine import device_name, library_versions
from tfcseg.media.images import read_image
from tfcseg.metrics.scores import Counts, Labels, Mean, WindowScores, percent
from tfcseg.report.html import shown_percent, write_html
from tfcseg.report.moments import draw_pictures, picture_size

_PER_VIDEO = 8
_STRETCH = 15  # frames of which the worst one is kept: one second of VSPW
_OF_FRAME = 3  # confusions that are named
_KEY_SHARE = 0.02  # of a picture, from which a class stands in the key to the colours
_WORST, _SKIPS, _PICTURED = 10, 50, 8
_CELLS = 24  # classes with a row of their own in the matrix; the others share one

RESULT_FILES = ("eval.json", "per_class.csv", "per_video.csv", "eval.html")

SCHEMA = 1  # version of eval.json; grows when a key changes its meaning or is removed

SkipKind = Literal[
    "missing video",
    "no masks",
    "missing frame",
    "missing image",
    "missing mask",
    "bad frame",
    "stray values",
    "too short",
]


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that was left out of the scores, and why; ``frame`` is None for a whole video."""

    kind: SkipKind
    video: str
    frame: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class WorstFrame:
    """A frame with many wrong labels; labels are PNG files of at most 320 px."""

    video: str
    frame: str
    wrong: float  # share of the pixels with a class that can be predicted
    confusions: tuple[tuple[int, int, float], ...]
    """The most frequent ones: class, what it was taken for (K: none), share of all pixels."""
    image: Path
    target: bytes
    prediction: bytes


@dataclass(frozen=True, slots=True)
class VideoScore:
    """Scores of one video (percentages over the classes that can be predicted) and the sums they are pooled from."""

    name: str
    frames: int  # scored frames
    frames_missing: int  # frames that are missing, or whose image or mask is
    miou: float | None
    pixel_accuracy: float | None
    windows: Mapping[int, WindowScores]
    flow_consistency: Mean
    label_change: Mean
    skipped: tuple[Skip, ...]
    worst_frames: tuple[WorstFrame, ...] = field(compare=False)
    model_s: float | None = field(default=None, compare=False)  # seconds in the network, if known


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of the data set: IoU in percent, among the classes that can be predicted and among all."""

    index: int
    name: str
    is_predictable: bool
    target_pixels: int
    predicted_pixels: int
    iou: float | None
    iou_all: float | None


@dataclass(frozen=True, slots=True)
class Speed:
    """``wall_s`` of the slowest process; ``model_s`` is the time in the network, summed over processes, if known."""

    wall_s: float
    fps: float
    model_s: float | None
    model_fps: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one split. Percentages are 0 to 100, and None where nothing could be counted.

    ``…_all`` is over all classes of the data set, with those that the model cannot predict counting 0; the plain
    numbers leave the ground truth of such classes out (``unpredictable`` lists those that occur). VC uses the target of
    all classes.
    """

    miou: float | None
    miou_all: float | None
    wiou: float | None
    wiou_all: float | None
    pixel_accuracy: float | None
    pixel_accuracy_all: float | None
    vc8: float | None
    vc16: float | None
    flow_consistency: float | None
    optical_flow: str | None
    label_change: float | None
    classes_counted: int
    classes_counted_all: int
    unpredictable: tuple[str, ...]
    windows: Mapping[int, WindowScores]
    videos: int
    frames: int
    frames_missing: int
    skipped: tuple[Skip, ...]
    classes: tuple[ClassScore, ...]
    per_video: tuple[VideoScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    """(K, K + 1) pixels by class of the ground truth and predicted class, the last column being none."""
    protocol: str
    mode: str
    dataset: str  # name of its folder
    labels: LabelSet  # the classes of the data set
    split: str
    speed: Speed
    provenance: Mapping[str, Any]  # as `full_provenance` returns it

    @property
    def is_incomplete(self) -> bool:
        """Whether data was missing or bad; a video that is only too short for a window does not count."""
        return any(skip.kind != "too short" for skip in self.skipped)

    @property
    def skipped_by_kind(self) -> dict[str, int]:
        """Number of entries of each kind in ``skipped``."""
        return dict(Counter(skip.kind for skip in self.skipped))

    @property
    def extent(self) -> dict[str, Any]:
        """What was scored: split, protocol, and numbers of videos, frames, classes and windows."""
        names = ("split", "protocol", "videos", "frames", "classes_counted", "classes_counted_all")
        windows = {f"{n}": windows.vc.count for n, windows in self.windows.items()}
        return {**{name: getattr(self, name) for name in names}, "windows": windows}

    def to_json(self) -> dict[str, Any]:
        """Content of eval.json: scores, counts, what was left out, and provenance."""
        named = [(score.name, score.iou, score.iou_all) for score in self.classes]
        others = {
            "windows": {str(n): {"counted": w.vc.count, "dropped": w.dropped} for n, w in self.windows.items()},
            "windows_dropped": {
                str(n): {name: getattr(w, f"dropped_{name}") for name in ("last", "across_gap", "without_target")}
                for n, w in self.windows.items()
            },
            "skipped": [asdict(skip) for skip in self.skipped],
            "speed": asdict(self.speed),
        }
        left_out = ("classes", "per_video", "confusion", "labels", "provenance", *others)
        return {
            "schema": SCHEMA,
            **{item.name: getattr(self, item.name) for item in fields(self) if item.name not in left_out},
            **others,
            "per_class": {name: iou for name, iou, _ in named if iou is not None},
            "per_class_all": {name: iou for name, _, iou in named if iou is not None},
            **self.provenance,
        }


def full_provenance(given: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of eval.json on what made the predictions, where and with which versions. ``given`` are those of
    `Predictions`, with options as in report.json."""
    return {
        **dict.fromkeys(("model", "options", "predictions", "label_map", "threads")),
        **given,
        "tfcseg": version("tfcseg"),
        "versions": library_versions(),
        "device_name": device_name((given.get("options") or {}).get("device", "cpu")),
    }


def write_evaluation(directory: str | Path, evaluation: Evaluation) -> tuple[Path, ...]:
    """Write ``RESULT_FILES`` into ``directory``, replacing those there; OutputError if it cannot be written."""
    result, classes, videos, page = paths = tuple(Path(directory) / name for name in RESULT_FILES)
    make_folder(result.parent)
    write_json(result, evaluation.to_json())
    _write_csv(classes, map(asdict, evaluation.classes))
    _write_csv(videos, map(_video_row, evaluation.per_video))
    write_page(page, evaluation)
    return paths


def _video_row(score: VideoScore) -> dict[str, Any]:
    row: dict[str, Any] = {
        "video": score.name,
        "frames": score.frames,
        "frames_missing": score.frames_missing,
        "miou": score.miou,
        "pixel_accuracy": score.pixel_accuracy,
    }
    for n, windows in score.windows.items():
        row[f"vc{n}"] = percent(windows.vc.value)
        row[f"vc{n}_counted"] = windows.vc.count
        row[f"vc{n}_dropped"] = windows.dropped
    row["flow_consistency"] = percent(score.flow_consistency.value)
    row["label_change"] = percent(score.label_change.value)
    row["skipped"] = "; ".join(f"{skip.frame or 'video'}: {skip.reason}" for skip in score.skipped)
    return row


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    with (
        replace_atomically(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()})


class WorstFrames:
    """Keeps the frame of most wrong labels of every second of a video, and of these the worst."""

    def __init__(self, video: str, is_predictable: NDArray[np.bool_]) -> None:
        self._video, self._is_predictable = video, is_predictable
        self._kept: dict[int, WorstFrame] = {}
        self._frames = 0

    def offer(self, frame: str, image: Path, counts: Counts, target: Labels, prediction: Labels) -> None:
        """Take the next frame, with its (K, K + 1) ``counts`` and (H, W) labels."""
        stretch, self._frames = self._frames // _STRETCH, self._frames + 1
        wrong = counts * self._is_predictable[:, None]
        total = wrong.sum()
        np.fill_diagonal(wrong, 0)
        share = float(wrong.sum() / total) if total else 0.0
        held = self._kept.get(stretch)
        if share <= (held.wrong if held else 0.0):
            return
        most = np.argsort(-wrong, axis=None, kind="stable")[:_OF_FRAME].tolist()
        places = [divmod(position, wrong.shape[1]) for position in most]
        confusions = tuple((a, b, float(wrong[a, b] / target.size)) for a, b in places if wrong[a, b])
        small = [shrink_labels(labels, picture_size(labels.shape)) for labels in (target, prediction)]
        truth, shown = [cv2.imencode(".png", labels)[1].tobytes() for labels in small]
        self._kept[stretch] = WorstFrame(self._video, frame, share, confusions, image, target=truth, prediction=shown)
        if len(self._kept) > _PER_VIDEO:
            del self._kept[min(self._kept, key=lambda each: self._kept[each].wrong)]

    def frames(self) -> tuple[WorstFrame, ...]:
        """Those kept, the worst first."""
        return tuple(sorted(self._kept.values(), key=lambda each: -each.wrong))


def worst_of(videos: Iterable[Sequence[WorstFrame]], count: int) -> list[WorstFrame]:
    """``count`` of the frames of all videos, the worst first: one of each video before any gives two."""
    ranked = [(rank, frame) for frames in videos for rank, frame in enumerate(frames)]
    chosen = sorted(ranked, key=lambda each: (each[0], -each[1].wrong))[:count]
    return sorted((frame for _, frame in chosen), key=lambda each: -each.wrong)


def unpack(packed: bytes) -> Labels:
    """(h, w) labels of a PNG file."""
    return np.asarray(cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def draw_frame(image: Path, target: Labels, prediction: Labels, labels: LabelSet) -> dict[str, str]:
    """Pictures of the page by title, of (h, w) labels; InputError if the image cannot be read."""
    pixels, maps = read_image(image), {"Truth": target, "Prediction": prediction}
    wrong = covered((prediction != target) & (target != NO_CLASS), picture_size(pixels.shape))
    return draw_pictures(pixels, maps, {"Wrong": wrong}, labels.palette_array())


def colour_key(maps: Iterable[Labels], labels: LabelSet) -> list[dict[str, str]]:
    """Names and colours of the classes that cover a good part of any of ``maps``."""
    seen = np.zeros(len(labels), np.bool_)
    for each in maps:
        seen |= class_shares(each, len(labels)) >= _KEY_SHARE
    return [
        {"name": labels.names[index], "colour": "#{:02x}{:02x}{:02x}".format(*labels.palette[index])}
        for index in np.flatnonzero(seen).tolist()
    ]


def write_page(path: Path, evaluation: Evaluation) -> None:
    """Write the page of ``evaluation``, complete or not at all; OutputError if it cannot be written."""
    videos = sorted(
        (score for score in evaluation.per_video if score.miou is not None), key=lambda score: (score.miou, score.name)
    )
    classes = [score for score in evaluation.classes if score.target_pixels]
    # The best first; those that cannot be predicted last.
    classes.sort(key=lambda score: (not score.is_predictable, -(score.iou or 0.0), score.index))
    context = {
        "evaluation": evaluation,
        "classes": classes,
        "pixels": sum(score.target_pixels for score in classes),
        "matrix": _matrix(evaluation),
        "worst": videos[:_WORST],
        "others": videos[_WORST:],
        "skipped": evaluation.skipped[:_SKIPS],
        **_worst_frames(evaluation),
    }
    write_html(path, "eval.html", context)


def _worst_frames(evaluation: Evaluation) -> dict[str, Any]:
    """Pictures of the ``worst_frames``, and the ``key`` to their colours."""
    labels, drawn, maps = evaluation.labels, [], []
    names = [*labels.names, "none"]
    for each in worst_of([score.worst_frames for score in evaluation.per_video], _PICTURED):
        target, prediction = unpack(each.target), unpack(each.prediction)
        try:
            pictures = draw_frame(each.image, target, prediction, labels)
        except InputError:  # an evaluation that needs the image reports it
            continue
        maps += [target, prediction]
        drawn.append(
            {
                "title": f"{each.video}, frame {each.frame}",
                "value": each.wrong,
                "pictures": pictures,
                "notes": [
                    f"{names[truth]} → {names[label]} {shown_percent(share, 1)}"
                    for truth, label, share in each.confusions
                ],
            }
        )
    return {"worst_frames": drawn, "key": colour_key(maps, labels)}


def _matrix(evaluation: Evaluation) -> dict[str, Any]:
    """Shares of each true class by predicted class: the most frequent classes, the rest together, none. Returns
    ``rows`` and ``columns``, in order, ``cells``: (row, column, share) of those above zero, and their size."""
    counts = np.array(evaluation.confusion)
    frequent = np.argsort(-counts.sum(axis=1), kind="stable")[:_CELLS]
    frequent = frequent[counts[frequent].sum(axis=1) > 0]
    rest = np.setdiff1d(np.arange(len(counts)), frequent)
    names = [evaluation.classes[index].name for index in frequent]
    columns = np.column_stack([counts[:, frequent], counts[:, rest].sum(axis=1), counts[:, -1]])
    table = columns[frequent] / columns[frequent].sum(axis=1, keepdims=True)
    kept = [column for column in range(table.shape[1]) if column < len(names) or table[:, column].any()]
    return {
        "cell_px": min(36, max(20, 520 // max(1, len(kept)))),
        "rows": names,
        "columns": [[*names, "other classes", "none"][column] for column in kept],
        "cells": [(row, at, float(table[row, kept[at]])) for row, at in np.argwhere(table[:, kept] >= 0.0005).tolist()],
    }
