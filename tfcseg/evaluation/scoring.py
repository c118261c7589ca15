"""Score one video: pair frames with predictions, decide what to leave out, feed the accumulators."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, TfcsegError
from tfcseg.evaluation.page import WorstFrames
from tfcseg.evaluation.predictions import Prediction, PredictionSource
from tfcseg.evaluation.result import Skip, SkipKind, VideoScore
from tfcseg.evaluation.scope import Scope
from tfcseg.evaluation.vspw import VspwDataset, VspwFrame, VspwVideo, read_target
from tfcseg.labels.label_sets import NO_CLASS, LabelMap, LabelSet, built_in_label_map, name_table
from tfcseg.media.images import read_image
from tfcseg.metrics.consistency import StabilityScores
from tfcseg.metrics.scores import (
    VC_WINDOWS,
    ConfusionMatrix,
    Counts,
    Labels,
    VideoConsistency,
    mean_iou,
    only_targets,
    percent,
    pixel_accuracy,
)

logger = logging.getLogger(__name__)

OnFrame: TypeAlias = Callable[[VspwVideo, VspwFrame, Labels], None]

_STRAY = 254
"""Marks meaningless values in a lookup table; data sets have at most 253 classes, so it is no class."""

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


class _ScoredFrame(NamedTuple):
    frame: VspwFrame
    target: Labels
    predicted: Labels  # as the source gave it
    prediction: Labels  # in classes of the data set
    after_gap: bool


class VideoScorer:
    """One video: pairs frames with predictions, decides what to leave out, and feeds the accumulators."""

    def __init__(self, video: VspwVideo, scoring: Scoring) -> None:
        self.video = video
        self.scoring = scoring
        self.skipped: list[Skip] = []

    def run(self, predict: PredictionSource, on_frame: OnFrame | None) -> tuple[VideoScore, Counts]:
        """Score the whole video; also returns its (K, K + 1) counts."""
        scoring = self.scoring
        confusion = ConfusionMatrix(scoring.num_classes)
        consistency = VideoConsistency(VC_WINDOWS, scoring.scope.protocol)
        stability = StabilityScores(use_flow=scoring.measure_flow_consistency)
        worst = WorstFrames(self.video.name, scoring.is_predictable())
        frames = 0
        for frame, target, predicted, prediction, after_gap in self._scored_frames(predict):
            before = confusion.counts.copy()
            confusion.update(target, prediction)
            worst.offer(frame.stem, frame.image, confusion.counts - before, target, prediction)
            consistency.update(target, prediction, after_gap=after_gap)
            if scoring.measure_flow_consistency:
                self._measure_flow_consistency(stability, frame, predicted, after_gap)
            if on_frame is not None:
                on_frame(self.video, frame, prediction)
            frames += 1
        usable = frames - 1 if scoring.scope.protocol == "vspw" else frames
        for n in VC_WINDOWS:
            if frames > 0 and usable < n:
                self._note("too short", None, f"{frames} frames are fewer than a window of {n}")
        counts = only_targets(confusion.counts, scoring.is_predictable())
        score = VideoScore(
            name=self.video.name,
            frames=frames,
            frames_missing=sum(self.video.missing_before) + sum(skip.kind in _ABSENT for skip in self.skipped),
            miou=percent(mean_iou(counts)),
            pixel_accuracy=percent(pixel_accuracy(counts)),
            windows=consistency.result(),
            **stability.means(),
            skipped=tuple(self.skipped),
            worst_frames=worst.frames(),
        )
        return score, confusion.counts

    def _scored_frames(self, predict: PredictionSource) -> Iterator[_ScoredFrame]:
        video = self.video
        if not video.frames:
            self._note("missing video", None, "no frame of it is in data/")
            return
        if not any(frame.mask for frame in video.frames):  # as in the public test split
            self._note("no masks", None, f"{len(video.frames)} frames without masks")
            return
        after_gap = False
        shape: tuple[int, ...] | None = None
        for frame, missing, predicted in zip(video.frames, video.missing_before, predict(video), strict=True):
            if missing:
                self._note("missing frame", frame, f"{missing} missing before this one")
                after_gap = True
            scored = self._pair(frame, predicted, after_gap, shape)
            after_gap = scored is None
            if scored is not None:
                shape = scored.target.shape
                yield scored

    def _pair(
        self, frame: VspwFrame, predicted: Prediction, after_gap: bool, shape: tuple[int, ...] | None
    ) -> _ScoredFrame | None:
        if frame.mask is None:
            self._note("missing mask", frame, "the image has no mask")
            return None
        if isinstance(predicted, TfcsegError):
            # Predictors from images cannot help an image that was never there.
            self._note("missing image" if frame.image is None else "bad frame", frame, str(predicted))
            return None
        try:
            target, stray = read_target(frame.mask, self.scoring.num_classes)
        except DataError as error:
            self._note("bad frame", frame, str(error))
            return None
        for value, pixels in stray.items():
            self._note("stray values", frame, f"{frame.mask}: value {value} is not a class ({pixels} pixels)")
        for what, other in (("its prediction", predicted.shape), ("the mask before it", shape)):
            if other is not None and other != target.shape:
                reason = f"{frame.mask}: the mask's (height, width) is {target.shape}, but that of {what} {other}"
                self._note("bad frame", frame, reason)
                return None
        return _ScoredFrame(frame, target, predicted, self._translate(frame, predicted), after_gap)

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

    def _measure_flow_consistency(
        self, stability: StabilityScores, frame: VspwFrame, predicted: Labels, after_gap: bool
    ) -> None:
        if after_gap or frame.image is None:
            stability.restart()
        if frame.image is None:
            return
        try:
            image = read_image(frame.image)
            if image.shape[:2] != predicted.shape:
                sizes = f"{image.shape[:2]}, but that of the labels {predicted.shape}"
                raise DataError(f"{frame.image}: the image's (height, width) is {sizes}")
            stability.update(image, predicted)
        except TfcsegError as error:
            self._note("bad frame", frame, str(error))
            stability.restart()

    def _note(self, kind: SkipKind, frame: VspwFrame | None, reason: str) -> None:
        """List what is left out; damage stops the evaluation unless it may be skipped."""
        if kind in _DAMAGE and not self.scoring.scope.skip_bad:
            raise DataError(f"{reason}; --skip-bad skips and counts it")
        self.skipped.append(Skip(kind, self.video.name, frame.stem if frame else None, reason))
