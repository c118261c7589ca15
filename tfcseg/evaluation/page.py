"""Pictures of scored frames, and eval.html: bars per class, what is taken for what, the worst videos.

Letters: K classes, H W mask, h w picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import (
    class_shares,
    colorize,
    covered,
    mark_difference,
    overlay,
    shrink,
    shrink_labels,
)
from tfcseg.errors import InputError
from tfcseg.labels.label_sets import NO_CLASS, LabelSet
from tfcseg.media.images import read_image
from tfcseg.metrics.scores import Counts, Labels
from tfcseg.report.html import shown_percent, write_html
from tfcseg.report.moments import encode_jpeg, picture_size

if TYPE_CHECKING:
    from tfcseg.evaluation.result import Evaluation

_PER_VIDEO = 8
_STRETCH = 15  # frames of which the worst one is kept: one second of VSPW
_OF_FRAME = 3  # confusions that are named
_TINT, _QUALITY = 0.65, 82
_KEY_SHARE = 0.02  # of a picture, from which a class stands in the key to the colours
_WORST, _SKIPS, _PICTURED = 10, 50, 8
_CELLS = 24  # classes with a row of their own in the matrix; the others share one


@dataclass(frozen=True, slots=True)
class WorstFrame:
    """A frame with many wrong labels; labels are PNG files of at most 320 px."""

    video: str
    frame: str
    wrong: float  # share of the pixels with a class that can be predicted
    confusions: tuple[tuple[int, int, float], ...]
    """The most frequent ones: class, what it was taken for (K: none), share of all pixels."""
    image: Path | None
    target: bytes
    prediction: bytes


class WorstFrames:
    """Keeps the frame of most wrong labels of every second of a video, and of these the worst."""

    def __init__(self, video: str, is_predictable: NDArray[np.bool_]) -> None:
        self._video, self._is_predictable = video, is_predictable
        self._kept: dict[int, WorstFrame] = {}
        self._frames = 0

    def offer(self, frame: str, image: Path | None, counts: Counts, target: Labels, prediction: Labels) -> None:
        """Take the next frame, with its (K, K + 1) ``counts`` and (H, W) labels."""
        stretch, self._frames = self._frames // _STRETCH, self._frames + 1
        wrong = counts * self._is_predictable[:, None]
        total = wrong.sum()
        np.fill_diagonal(wrong, 0)
        share = float(wrong.sum() / total) if total else 0.0
        held = self._kept.get(stretch)
        if share <= (held.wrong if held else 0.0):
            return
        confusions = tuple((a, b, float(wrong[a, b] / target.size)) for a, b in _greatest(wrong, _OF_FRAME))
        small = [_pack(shrink_labels(labels, picture_size(labels.shape))) for labels in (target, prediction)]
        self._kept[stretch] = WorstFrame(
            self._video, frame, share, confusions, image, target=small[0], prediction=small[1]
        )
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


def _pack(labels: Labels) -> bytes:
    encoded: bytes = cv2.imencode(".png", labels)[1].tobytes()
    return encoded


def unpack(packed: bytes) -> Labels:
    """(h, w) labels of a PNG file."""
    return np.asarray(cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def draw_frame(image: Path | None, target: Labels, prediction: Labels, labels: LabelSet) -> list[dict[str, Any]]:
    """JPEG files with their titles: frame, truth, prediction, and where that is wrong. Labels are (h, w). Without the
    image they are drawn alone."""
    palette = labels.palette_array()
    maps = {"Truth": target, "Prediction": prediction}
    filmed = None
    with suppress(InputError):  # the evaluation reports it
        filmed = None if image is None else shrink(read_image(image), (target.shape[0], target.shape[1]))
    if filmed is None:
        pictures = {title: colorize(each, palette) for title, each in maps.items()}
    else:
        tinted = {title: overlay(filmed, each, palette, alpha=_TINT) for title, each in maps.items()}
        wrong = (prediction != target) & (target != NO_CLASS)
        pictures = {"Frame": filmed, **tinted, "Wrong": mark_difference(filmed, covered(wrong, filmed.shape[:2]))}
    return [{"title": title, "data": encode_jpeg(picture, _QUALITY)} for title, picture in pictures.items()]


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
    context = {
        "evaluation": evaluation,
        "classes": _class_rows(evaluation),
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
        maps += [target, prediction]
        drawn.append(
            {
                "title": f"{each.video}, frame {each.frame}",
                "value": each.wrong,
                "pictures": draw_frame(each.image, target, prediction, labels),
                "notes": [
                    f"{names[truth]} → {names[label]} {shown_percent(share, 1)}"
                    for truth, label, share in each.confusions
                ],
            }
        )
    return {"worst_frames": drawn, "key": colour_key(maps, labels)}


def _class_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Classes that occur in the ground truth, best first; those that cannot be predicted last."""
    total = max(1, sum(score.target_pixels for score in evaluation.classes))
    found = [score for score in evaluation.classes if score.target_pixels]
    found.sort(key=lambda score: (not score.is_predictable, -(score.iou or 0.0), score.index))
    return [
        {
            "name": score.name,
            "iou": score.iou if score.is_predictable else None,
            "target_share": score.target_pixels / total,
            "predicted_share": score.predicted_pixels / total,
        }
        for score in found
    ]


def _matrix(evaluation: Evaluation) -> dict[str, Any]:
    """Shares of each true class by predicted class: the most frequent classes, the rest together, none. Returns
    ``rows`` and ``columns``, in order, ``cells``: (row, column, share) of those above zero, and their size."""
    counts = np.array(evaluation.confusion)
    frequent = np.argsort(-counts.sum(axis=1), kind="stable")[:_CELLS]
    frequent = frequent[counts[frequent].sum(axis=1) > 0]
    rest = np.setdiff1d(np.arange(len(counts)), frequent)
    names = [evaluation.classes[index].name for index in frequent]
    columns = np.column_stack([counts[:, frequent], counts[:, rest].sum(axis=1), counts[:, -1]])
    table: NDArray[np.float64] = columns[frequent].astype(np.float64)
    table /= table.sum(axis=1, keepdims=True)
    kept = [column for column in range(table.shape[1]) if column < len(names) or table[:, column].any()]
    return {
        "cell_px": min(36, max(20, 520 // max(1, len(kept)))),
        "rows": names,
        "columns": [[*names, "other classes", "none"][column] for column in kept],
        "cells": [
            (row, position, float(table[row, column]))
            for row in range(len(names))
            for position, column in enumerate(kept)
            if table[row, column] >= 0.0005
        ],
    }


def _greatest(wrong: Counts, count: int) -> list[tuple[int, int]]:
    """Row and column of at most ``count`` entries above zero, the greatest first."""
    order: list[int] = np.argsort(-wrong, axis=None, kind="stable")[:count].tolist()
    places = (divmod(position, wrong.shape[1]) for position in order)
    return [place for place in places if wrong[place]]
