"""Write eval.html: bars per class, confusions, the worst videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.evaluation.frame_pictures import colour_key, draw_frame, unpack, worst_of
from tfcseg.report.html import shown_percent, write_html

if TYPE_CHECKING:
    from tfcseg.evaluation.result import Evaluation

_CELLS = 24
"""Classes with a row of their own in the matrix; the others share one."""

_CONFUSIONS, _WORST, _SKIPS, _PICTURED = 12, 10, 50, 8
_FEW = 1e-4
"""Confusions below this share of all pixels are not shown."""


def write_page(path: Path, evaluation: Evaluation) -> None:
    """Write the page of ``evaluation``, complete or not at all; OutputError if it cannot be written."""
    videos = sorted(
        (score for score in evaluation.per_video if score.miou is not None), key=lambda score: (score.miou, score.name)
    )
    context = {
        "evaluation": evaluation,
        "classes": _class_rows(evaluation),
        "matrix": _matrix(evaluation),
        "confusions": _confusions(evaluation),
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
                "pictures": draw_frame(each.image, target, {"Prediction": prediction}, labels),
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
    """Shares of each true class by predicted class: the most frequent classes, the rest together, none.

    Returns ``rows`` and ``columns``, in order, ``cells``: (row, column, share) of those above zero, and their size.
    """
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


def _confusions(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Pairs of classes that cost the most pixels."""
    counts = np.array(evaluation.confusion)
    wrong = counts[:, :-1].copy()
    np.fill_diagonal(wrong, 0)
    total, in_target = max(1, int(counts.sum())), counts.sum(axis=1)
    order: Sequence[int] = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS].tolist()
    pairs = [(position // len(wrong), position % len(wrong)) for position in order]
    return [
        {
            "target": evaluation.classes[target].name,
            "prediction": evaluation.classes[prediction].name,
            "of_class": float(wrong[target, prediction] / in_target[target]),
            "of_all": float(wrong[target, prediction] / total),
        }
        for target, prediction in pairs
        if wrong[target, prediction] >= _FEW * total
    ]
