"""Measure how well w_t predicts changes of labels: the mask "w_t ≥ threshold" against ground truth (paper, figure 4).

Shapes: h w grid of w_t (stride 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, TfcsegError
from tfcseg.evaluation.predictions import Prediction, PredictionSource
from tfcseg.evaluation.vspw import VspwFrame, VspwVideo, read_target
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.metrics.scores import Labels, percent
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import NonKeyframes

MASK_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class MaskScore:
    """The mask at one threshold, in percent; None where the denominator is 0."""

    threshold: float
    below: float | None
    """Share of all points that are below the threshold; eq. 11 updates these."""
    accuracy: float | None
    """Share of the points with ground truth where the mask is right."""
    precision: float | None
    """Share of the points below the threshold whose label changed."""
    recall: float | None
    """Share of the points whose label changed that are below the threshold."""


@dataclass(frozen=True, slots=True)
class SimilarityScores:
    """Scores at all thresholds; ``changed`` is the percentage of points whose label changed."""

    frames: int
    """Frames between keyframes."""
    points: int
    """Points with ground truth in the keyframe and the frame."""
    changed: float | None
    thresholds: tuple[MaskScore, ...]


class SimilarityMeter:
    """Counts points by similarity and by whether their label changed."""

    def __init__(self) -> None:
        self.frames = 0
        self._all = np.zeros(len(MASK_THRESHOLDS) + 1, np.int64)
        """Points by the number of thresholds that their similarity reaches."""
        self._known = np.zeros((2, len(MASK_THRESHOLDS) + 1), np.int64)
        """The same for unchanged and changed points with ground truth."""

    def update(self, w: NDArray[np.float32], before: Labels | None, now: Labels | None) -> None:
        """Add a frame: w (h, w), and labels (h, w) in the keyframe and now; None if unknown."""
        reached = np.digitize(w, np.array(MASK_THRESHOLDS, np.float32))
        self.frames += 1
        self._all += self._count(reached)
        if before is None or now is None:
            return
        known = (before != NO_CLASS) & (now != NO_CLASS)
        for row, wanted in enumerate((before == now, before != now)):
            self._known[row] += self._count(reached[known & wanted])

    def result(self) -> SimilarityScores:
        """Scores of all frames so far."""
        unchanged, changed = self._known
        scores = []
        for index, threshold in enumerate(MASK_THRESHOLDS):
            hits, misses = changed[: index + 1].sum(), changed[index + 1 :].sum()
            false, right = unchanged[: index + 1].sum(), unchanged[index + 1 :].sum()
            scores.append(
                MaskScore(
                    threshold,
                    below=_share(self._all[: index + 1].sum(), self._all.sum()),
                    accuracy=_share(hits + right, self._known.sum()),
                    precision=_share(hits, hits + false),
                    recall=_share(hits, hits + misses),
                )
            )
        return SimilarityScores(
            self.frames, int(self._known.sum()), _share(changed.sum(), self._known.sum()), tuple(scores)
        )

    @staticmethod
    def _count(reached: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(reached.ravel(), minlength=len(MASK_THRESHOLDS) + 1)


class WatchedPredictions:
    """A model's predictions; measures similarity and updated points on the way.

    Args:
        predict: Runs the network an interval at a time, like ``ModelPredictions``.
        options: Options of ``predict``.
        found: List to which the network appends results for frames between keyframes; emptied here.
        num_classes: Number of classes of the data set.

    """

    def __init__(
        self, predict: PredictionSource, options: InferenceOptions, found: list[NonKeyframes], num_classes: int
    ) -> None:
        self.similarity = SimilarityMeter()
        self.updated_fractions: list[float] = []  # of frames between keyframes
        self._predict, self._options, self._found, self._num_classes = predict, options, found, num_classes

    def __call__(self, video: VspwVideo) -> Iterator[Prediction]:
        """Yield the predictions unchanged."""
        interval: list[VspwFrame] = []
        for frame, prediction in zip(video.frames, self._predict(video), strict=False):
            if not isinstance(prediction, TfcsegError):
                interval.append(frame)
            if len(interval) == self._options.keyframe_interval:
                self._measure(interval)
                interval = []
            yield prediction
        self._measure(interval)

    def _measure(self, interval: Sequence[VspwFrame]) -> None:
        results = self._found.copy()
        self._found.clear()
        if not results:
            return
        others = list(interval)
        key = others.pop(self._options.keyframe_of(len(interval)))
        grid = (results[0].similarity.shape[1], results[0].similarity.shape[2])
        key_labels = self._read(key, grid)
        now = (self._read(frame, grid) for frame in others)
        for result in results:
            similarity = result.similarity.float().cpu().numpy()
            updated = result.updated_fraction.tolist()
            for w, share, before in zip(similarity, updated, _compared_labels(key_labels, result), strict=True):
                self.updated_fractions.append(share)
                self.similarity.update(w, before, next(now))

    def _read(self, frame: VspwFrame, grid: tuple[int, int]) -> Labels | None:
        """Labels (h, w) at the centres of the grid's cells; None if the mask is unreadable, which the scores report."""
        if frame.mask is None:
            return None
        try:
            labels, _ = read_target(frame.mask, self._num_classes)
        except DataError:
            return None
        return np.asarray(cv2.resize(labels, grid[::-1], interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def _compared_labels(key_labels: Labels | None, result: NonKeyframes) -> list[Labels | None]:
    """For each frame, the keyframe's labels (h, w) at the compared positions."""
    frames = len(result.similarity)
    if key_labels is None or result.shift is None:
        return [key_labels] * frames
    rows = result.shift.rows.view(frames, -1).cpu().numpy()  # one keyframe, since intervals are run one by one
    return [key_labels.ravel()[own].reshape(key_labels.shape) for own in rows]


def _share(part: np.int64, whole: np.int64) -> float | None:
    return percent(float(part / whole)) if whole else None
