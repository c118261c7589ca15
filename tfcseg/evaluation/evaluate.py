"""Score predictions on the videos of a VSPW split, in this process or on a Ray cluster."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.evaluation.predictions import Predictions
from tfcseg.evaluation.result import ClassScore, Evaluation, Speed, VideoScore, full_provenance
from tfcseg.evaluation.scope import Scope
from tfcseg.evaluation.scoring import Scoring, VideoScorer, prediction_table
from tfcseg.evaluation.vspw import VspwDataset, open_vspw
from tfcseg.metrics.consistency import StabilityScores
from tfcseg.metrics.scores import (
    VC_WINDOWS,
    ConfusionMatrix,
    Counts,
    Mean,
    WindowScores,
    class_iou,
    mean_iou,
    only_targets,
    percent,
    pixel_accuracy,
    weighted_iou,
)
from tfcseg.options import check
from tfcseg.workers import WorkerOptions, work_through

logger = logging.getLogger(__name__)


class Scored(NamedTuple):
    """Result of one video."""

    score: VideoScore
    counts: Counts
    model_s: float | None  # seconds in the network, if known


def evaluate(
    root: str | Path,
    predictions: Predictions | Callable[[VspwDataset], Predictions],
    scope: Scope = Scope(),
    *,
    measure_flow_consistency: bool = False,
    workers: WorkerOptions = WorkerOptions(),
    uses_gpu: bool = False,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score ``predictions`` for the videos of a split, in this process or on a cluster, with the same scores.

    Missing frames, masks and videos do not stop it: they are counted and listed in ``skipped``. DataError if the folder
    or a prediction is not what it should be, or if nothing could be scored.

    The label map of ``scope`` is not read. ``predictions`` may be a function of the data set, called by every process.
    ``on_done`` is called with the numbers of scored and of all videos, from 0 on.
    """
    videos = open_vspw(root, scope.split).videos[: scope.limit]
    make = partial(_scorer, Path(root), predictions, scope, measure_flow_consistency)
    on_done(0, len(videos))
    answers = work_through(workers, make, [None, *videos], uses_gpu=uses_gpu)
    return _pool(next(answers), answers, lambda done: on_done(done, len(videos)))


def _scorer(
    root: Path,
    predictions: Predictions | Callable[[VspwDataset], Predictions],
    scope: Scope,
    measure_flow_consistency: bool,
) -> Callable[[str | None], Any]:
    """Return a function that scores the video of a name; given None, it returns the settings."""
    check(scope)
    dataset = open_vspw(root, scope.split)
    if not isinstance(predictions, Predictions):
        predictions = predictions(dataset)
    used, all_of_split = len(dataset.videos[: scope.limit]), len(dataset.videos)
    extra = {"split": scope.split}
    logger.info("%d of the %d videos of split %s", used, all_of_split, scope.split, extra=extra)
    scoring = Scoring(
        dataset=dataset,
        table=prediction_table(dataset.labels, predictions.labels, predictions.label_map),
        scope=scope,
        measure_flow_consistency=measure_flow_consistency,
        mode=predictions.mode,
        provenance=predictions.provenance,
    )
    source, clock = predictions.source, predictions.model_s

    def score(name: str | None) -> Scoring | Scored:
        if name is None:
            return scoring
        started_s = clock() if clock else 0.0
        found, counts = VideoScorer(dataset.read_video(name), scoring).run(source)
        return Scored(found, counts, clock() - started_s if clock else None)

    return score


def _pool(scoring: Scoring, videos: Iterable[Scored], on_done: Callable[[int], None]) -> Evaluation:
    """Combine ``videos``, which are scored meanwhile, to an evaluation."""
    started_s = time.perf_counter()
    scores: list[VideoScore] = []
    model_s: float | None = None
    counts = ConfusionMatrix(scoring.num_classes).counts
    for video in videos:
        scores.append(video.score)
        counts += video.counts
        if video.model_s is not None:
            model_s = (model_s or 0.0) + video.model_s
        on_done(len(scores))
    wall_s = time.perf_counter() - started_s
    dataset = scoring.dataset
    skipped = tuple(itertools.chain(*(score.skipped for score in scores)))
    frames = sum(score.frames for score in scores)
    if not frames:
        first = f", such as {skipped[0].video}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"{dataset.root}: no frame of split {dataset.split!r} can be scored{first}")
    is_predictable = scoring.is_predictable()
    predictable = only_targets(counts, is_predictable)
    classes = _class_scores(dataset, counts, predictable, is_predictable)
    windows = {n: WindowScores.pool(score.windows[n] for score in scores) for n in VC_WINDOWS}
    return Evaluation(
        miou=percent(mean_iou(predictable)),
        miou_all=percent(mean_iou(counts)),
        wiou=percent(weighted_iou(predictable)),
        wiou_all=percent(weighted_iou(counts)),
        pixel_accuracy=percent(pixel_accuracy(predictable)),
        pixel_accuracy_all=percent(pixel_accuracy(counts)),
        vc8=percent(windows[8].vc.value),
        vc16=percent(windows[16].vc.value),
        flow_consistency=percent(Mean.pool(score.flow_consistency for score in scores).value),
        optical_flow=StabilityScores(use_flow=scoring.measure_flow_consistency).flow_name,
        label_change=percent(Mean.pool(score.label_change for score in scores).value),
        classes_counted=sum(score.iou is not None for score in classes),
        classes_counted_all=sum(score.iou_all is not None for score in classes),
        unpredictable=tuple(score.name for score in classes if score.target_pixels and not score.is_predictable),
        windows=windows,
        videos=sum(score.frames > 0 for score in scores),
        frames=frames,
        frames_missing=sum(score.frames_missing for score in scores),
        skipped=skipped,
        classes=classes,
        per_video=tuple(scores),
        confusion=tuple(tuple(row) for row in counts.tolist()),
        mode=scoring.mode,
        dataset=dataset.root.resolve().name,
        labels=dataset.labels,
        split=dataset.split,
        speed=Speed(wall_s, frames / wall_s, model_s, frames / model_s if model_s else None),
        provenance=full_provenance(scoring.provenance),
    )


def _class_scores(
    dataset: VspwDataset, counts: Counts, predictable: Counts, is_predictable: NDArray[np.bool_]
) -> tuple[ClassScore, ...]:
    iou, iou_all = class_iou(predictable), class_iou(counts)
    in_target, predicted = counts.sum(axis=1), counts[:, :-1].sum(axis=0)
    return tuple(
        ClassScore(
            index=index,
            name=name,
            is_predictable=bool(is_predictable[index]),
            target_pixels=int(in_target[index]),
            predicted_pixels=int(predicted[index]),
            iou=percent(float(iou[index])),
            iou_all=percent(float(iou_all[index])),
        )
        for index, name in enumerate(dataset.labels.names)
    )
