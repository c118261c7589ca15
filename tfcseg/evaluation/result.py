"""Result of an evaluation and its files: eval.json, per_class.csv, per_video.csv, eval.html."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from tfcseg.evaluation.page import WorstFrame, write_page
from tfcseg.files import make_folder, replace_atomically, write_json
from tfcseg.labels.label_sets import LabelSet
from tfcseg.machine import device_name, library_versions
from tfcseg.metrics.scores import Mean, WindowScores, percent

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
    worst_frames: tuple[WorstFrame, ...] = field(default=(), compare=False)


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
        """What was scored: split, and numbers of videos, frames, classes and windows."""
        names = ("split", "videos", "frames", "classes_counted", "classes_counted_all")
        windows = {f"{n}": windows.vc.count for n, windows in self.windows.items()}
        return {**{name: getattr(self, name) for name in names}, "windows": windows}

    def to_json(self) -> dict[str, Any]:
        """Content of eval.json: scores, counts, what was left out, and provenance."""
        named = [(score.name, score.iou, score.iou_all) for score in self.classes]
        others = {
            "windows": {str(n): {"counted": w.vc.count, "dropped": w.dropped} for n, w in self.windows.items()},
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
