"""Score predictions on the videos of a VSPW split, in this process or on a Ray cluster."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, TfcsegError
from tfcseg.evaluation.predictions import Prediction, Predictions, PredictionSource
from tfcseg.evaluation.result import (
    ClassScore,
    Evaluation,
    Skip,
    SkipKind,
    Speed,
    VideoScore,
    WorstFrames,
    full_provenance,
)
from tfcseg.evaluation.scope import Scope
from tfcseg.evaluation.vspw import VspwDataset, VspwFrame, VspwVideo, open_vspw, read_target
from tfcseg.files import make_folder
from tfcseg.labels.label_sets import NO_CLASS, LabelMap, LabelSet, built_in_label_map, name_table
from tfcseg.media.images import read_image
from tfcseg.media.masks import write_mask
from tfcseg.metrics.consistency import ConsistencyMeter, StabilityScores
from tfcseg.metrics.scores import (
    VC_WINDOWS,
    ConfusionMatrix,
    Counts,
    Labels,
    Mean,
    VideoConsistency,
    WindowScores,
    class_iou,
    mean_iou,
    only_targets,
    percent,
    pixel_accuracy,
    weighted_iou,
)
from tfcseg.options import OnStep, check
from tfcseg.spelling import count_of
from tfcseg.workers import WorkerOptions, work_through

logger = logging.getLogger(__name__)

_STRAY = 254  # marks meaningless values in a lookup table; data sets have at most 253 classes, so it is no class

_ABSENT: tuple[SkipKind, ...] = ("missing image", "missing mask")
_DAMAGE: tuple[SkipKind, ...] = ("bad frame", "stray values")


@dataclass(frozen=True, slots=True)
class Scoring:
    """Settings that all videos share."""

    dataset: VspwDataset
    table: Labels  # (256,) predicted value -> class of the data set
    scope: Scope
    measure_flow_consistency: bool
    mode: str
    provenance: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        """Classes of the data set."""
        return len(self.dataset.labels)

    def is_predictable(self) -> NDArray[np.bool_]:
        """(K,) which classes of the data set a prediction can name."""
        return np.isin(np.arange(self.num_classes), self.table)


def prediction_table(dataset: LabelSet, model: LabelSet | None, label_map: LabelMap | None) -> Labels:
    """(256,) class of the data set by predicted value: 255 without a counterpart, 254 for meaningless values."""
    table = np.full(256, _STRAY, dtype=np.uint8)
    table[NO_CLASS] = NO_CLASS
    if model is None:
        table[: len(dataset)] = np.arange(len(dataset))
    else:
        pairs = built_in_label_map(model, dataset) if label_map is None else label_map
        counterparts = name_table(model, dataset, pairs)
        table[: len(model)] = np.where(counterparts < 0, NO_CLASS, counterparts)
        logger.info(
            "%s label map: %d of the model's %d classes map to %d of the data set's %d",
            *("built-in" if label_map is None else "given", int((counterparts >= 0).sum()), len(model)),
            *(len(set(counterparts[counterparts >= 0])), len(dataset)),
            extra={"label_map": dict(pairs)},
        )
    return table


class VideoScorer:
    """One video: pairs frames with predictions, decides what to leave out, and feeds the accumulators.

    Predictions are written to folder ``masks``, as classes of the data set.
    """

    def __init__(self, video: VspwVideo, scoring: Scoring, masks: Path | None) -> None:
        self.video, self.scoring, self.masks = video, scoring, masks
        self.skipped: list[Skip] = []
        self._frames = 0
        self._shape: tuple[int, ...] | None = None  # of the frame before
        self.confusion = ConfusionMatrix(scoring.num_classes)
        self._consistency = VideoConsistency(VC_WINDOWS, scoring.scope.protocol)
        self._stability = StabilityScores(use_flow=scoring.measure_flow_consistency)
        self._worst = WorstFrames(video.name, scoring.is_predictable())

    def run(self, predict: PredictionSource) -> VideoScore:
        """Score the whole video."""
        video, scoring = self.video, self.scoring
        if not video.frames:
            self._note("missing video", None, "no frame of it is in data/")
        elif not any(frame.mask for frame in video.frames):  # as in the public test split
            self._note("no masks", None, f"{len(video.frames)} frames without masks")
        else:
            after_gap = False
            for frame, missing, predicted in zip(video.frames, video.missing_before, predict(video), strict=True):
                if missing:
                    self._note("missing frame", frame, f"{missing} missing before this one")
                after_gap = not self._add(frame, predicted, after_gap=after_gap or missing > 0)
        protocol = scoring.scope.protocol
        for n in VC_WINDOWS:
            needed = n + 1 if protocol == "vspw" else n  # its last window does not count
            if 0 < self._frames < needed:
                found = count_of(self._frames, "frame")
                self._note("too short", None, f"{found}; VC{n} needs {needed} by protocol {protocol}")
        counts, stability = only_targets(self.confusion.counts, scoring.is_predictable()), self._stability.means()
        return VideoScore(
            name=video.name,
            frames=self._frames,
            frames_missing=sum(video.missing_before) + sum(skip.kind in _ABSENT for skip in self.skipped),
            miou=percent(mean_iou(counts)),
            pixel_accuracy=percent(pixel_accuracy(counts)),
            windows=self._consistency.result(),
            flow_consistency=stability["flow_consistency"],
            label_change=stability["label_change"],
            skipped=tuple(self.skipped),
            worst_frames=self._worst.frames(),
        )

    def _add(self, frame: VspwFrame, predicted: Prediction, *, after_gap: bool) -> bool:
        """Score the next frame; False if it has to be left out."""
        if frame.mask is None:
            return self._note("missing mask", frame, "the image has no mask")
        if isinstance(predicted, TfcsegError):
            # Predictors from images cannot help an image that was never there.
            return self._note("missing image" if frame.image is None else "bad frame", frame, str(predicted))
        try:
            target, stray = read_target(frame.mask, self.scoring.num_classes)
        except DataError as error:
            return self._note("bad frame", frame, str(error))
        for value, pixels in stray.items():
            self._note("stray values", frame, f"{frame.mask}: value {value} is not a class ({pixels} pixels)")
        for what, other in (("its prediction", predicted.shape), ("the mask before it", self._shape)):
            if other is not None and other != target.shape:
                reason = f"{frame.mask}: the mask's (height, width) is {target.shape}, but that of {what} {other}"
                return self._note("bad frame", frame, reason)
        prediction = self._translate(frame, predicted)
        before = self.confusion.counts.copy()
        self.confusion.update(target, prediction)
        if frame.image is not None:
            self._worst.offer(frame.stem, frame.image, self.confusion.counts - before, target, prediction)
        self._consistency.update(target, prediction, after_gap=after_gap)
        if self.scoring.measure_flow_consistency:
            self._measure_flow_consistency(frame, predicted, after_gap=after_gap)
        if self.masks is not None:
            make_folder(self.masks / self.video.name)
            write_mask(self.masks / self.video.name / f"{frame.stem}.png", prediction)
        self._frames += 1
        self._shape = target.shape
        return True

    def _translate(self, frame: VspwFrame, predicted: Labels) -> Labels:
        prediction = np.asarray(cv2.LUT(predicted, self.scoring.table), dtype=np.uint8)
        is_stray = prediction == _STRAY
        if is_stray.any():
            highest = int(np.flatnonzero(self.scoring.table != _STRAY)[-2])
            raise DataError(
                f"prediction {self.video.name}/{frame.stem}.png has value {predicted[is_stray].min()}; "
                f"classes go from 0 to {highest}, {NO_CLASS} = none"
            )
        return prediction

    def _measure_flow_consistency(self, frame: VspwFrame, predicted: Labels, *, after_gap: bool) -> None:
        if after_gap or frame.image is None:
            self._stability.restart()
        if frame.image is None:
            return
        try:
            image = read_image(frame.image)
            if image.shape[:2] != predicted.shape:
                sizes = f"{image.shape[:2]}, but that of the labels {predicted.shape}"
                raise DataError(f"{frame.image}: the image's (height, width) is {sizes}")
            self._stability.update(image, predicted)
        except TfcsegError as error:
            self._note("bad frame", frame, str(error))
            self._stability.restart()

    def _note(self, kind: SkipKind, frame: VspwFrame | None, reason: str) -> Literal[False]:
        """List what is left out; damage stops the evaluation unless it may be skipped."""
        if kind in _DAMAGE and not self.scoring.scope.skip_bad:
            raise DataError(f"{reason}; --skip-bad skips and counts it")
        self.skipped.append(Skip(kind, self.video.name, frame.stem if frame else None, reason))
        return False


def evaluate(
    root: str | Path,
    predictions: Predictions | Callable[[VspwDataset], Predictions],
    scope: Scope = Scope(),
    *,
    measure_flow_consistency: bool = False,
    save_masks: Path | None = None,
    workers: WorkerOptions = WorkerOptions(),
    uses_gpu: bool = False,
    on_done: OnStep = lambda done, total: None,
) -> Evaluation:
    """Score ``predictions`` for the videos of a split, in this process or on a cluster, with the same scores.

    Missing frames, masks and videos do not stop it: they are counted and listed in ``skipped``. DataError if the folder
    or a prediction is not what it should be, or if nothing could be scored.

    The label map of ``scope`` is not read. ``predictions`` may be a function of the data set, called by every process.
    ``save_masks`` is a folder for the scored labels, in the layout that `PredictionFolder` reads. ``on_done`` is called
    with the numbers of scored and of all videos, from 0 on.
    """
    videos = open_vspw(root, scope.split).videos[: scope.limit]
    make = partial(_scorer, Path(root), predictions, scope, measure_flow_consistency, save_masks)
    on_done(0, len(videos))
    answers = work_through(workers, make, [None, *videos], uses_gpu=uses_gpu)
    return _pool(next(answers), answers, lambda done: on_done(done, len(videos)))


def _scorer(
    root: Path,
    predictions: Predictions | Callable[[VspwDataset], Predictions],
    scope: Scope,
    measure_flow_consistency: bool,
    save_masks: Path | None,
) -> Callable[[str | None], Any]:
    """Return a function that scores the video of a name; given None, it returns the settings."""
    check(scope)
    dataset = open_vspw(root, scope.split)
    if not isinstance(predictions, Predictions):
        predictions = predictions(dataset)
    used, all_of_split = len(dataset.videos[: scope.limit]), len(dataset.videos)
    extra = {"split": scope.split, "protocol": scope.protocol}
    text = "%d of the %d videos of split %s, VC by protocol %s"
    logger.info(text, used, all_of_split, scope.split, scope.protocol, extra=extra)
    scoring = Scoring(
        dataset=dataset,
        table=prediction_table(dataset.labels, predictions.labels, predictions.label_map),
        scope=scope,
        measure_flow_consistency=measure_flow_consistency,
        mode=predictions.mode,
        provenance=predictions.provenance,
    )
    source, clock = predictions.source, predictions.model_s

    def score(name: str | None) -> Scoring | tuple[VideoScore, Counts]:
        if name is None:
            return scoring
        started_s = clock() if clock else 0.0
        scorer = VideoScorer(dataset.read_video(name), scoring, save_masks)
        found = scorer.run(source)
        return replace(found, model_s=clock() - started_s if clock else None), scorer.confusion.counts

    return score


def _pool(scoring: Scoring, videos: Iterable[tuple[VideoScore, Counts]], on_done: Callable[[int], None]) -> Evaluation:
    """Combine ``videos``, which are scored meanwhile, to an evaluation."""
    started_s = time.perf_counter()
    scores: list[VideoScore] = []
    counts = ConfusionMatrix(scoring.num_classes).counts
    for score, added in videos:
        scores.append(score)
        counts += added
        on_done(len(scores))
    wall_s = time.perf_counter() - started_s
    model_s = sum(score.model_s or 0.0 for score in scores) or None
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
        optical_flow=ConsistencyMeter(use_flow=scoring.measure_flow_consistency).flow_name,
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
        protocol=scoring.scope.protocol,
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
