"""How well w_t tells what changed: its mask "w_t ≥ threshold" against the ground truth (the paper's figure 4).

Letters: h w grid of w_t (stride 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, TfcsegError
from tfcseg.evaluation.predictions import Prediction, PredictionSource
from tfcseg.evaluation.result import percent
from tfcseg.evaluation.vspw import VspwFrame, VspwVideo, read_target
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.metrics.scores import Labels
from tfcseg.model.options import InferenceOptions
from tfcseg.model.tfc import NonKeyframes
from tfcseg.runs.summary import Mean

MASK_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class MaskScore:
    """The mask at one threshold. Percentages, None where there is nothing to divide by."""

    threshold: float
    below: float | None
    """Share of all points whose similarity is below the threshold: eq. 11 updates these."""
    accuracy: float | None
    """Share of the points with ground truth where "changed" and "unchanged" are told rightly."""
    precision: float | None
    """Share of the points below the threshold whose label changed."""
    recall: float | None
    """Share of the points whose label changed that are below the threshold."""


@dataclass(frozen=True, slots=True)
class SimilarityScores:
    """All thresholds; saying "unchanged" everywhere would be right at all but ``changed`` percent of the points."""

    frames: int
    """Between keyframes."""
    points: int
    """With ground truth in the keyframe and now."""
    changed: float | None
    thresholds: tuple[MaskScore, ...]


class SimilarityMeter:
    """Counts points by similarity and by whether their label is that of the keyframe."""

    def __init__(self) -> None:
        self.frames = 0
        self._all = np.zeros(len(MASK_THRESHOLDS) + 1, np.int64)
        """Points by how many thresholds their similarity reaches."""
        self._known = np.zeros((2, len(MASK_THRESHOLDS) + 1), np.int64)
        """The same for points with ground truth, unchanged and changed ones."""

    def update(self, w: NDArray[np.float32], before: Labels | None, now: Labels | None) -> None:
        """Add a frame: w (h, w), labels of the positions in the keyframe and now (h, w); None: not known."""
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
    """A model's predictions, measured on the way beyond their labels.

    Args:
        predict: Runs the network an interval at a time, as ``ModelPredictions`` does.
        options: Those of ``predict``.
        found: Where its network puts what it finds for frames between keyframes; it is emptied here.
        num_classes: Of the data set.

    """

    def __init__(
        self, predict: PredictionSource, options: InferenceOptions, found: list[NonKeyframes], num_classes: int
    ) -> None:
        self.similarity = SimilarityMeter()
        self.updated_fraction = Mean()
        """Over the frames between keyframes."""
        self._predict, self._options, self._found, self._num_classes = predict, options, found, num_classes

    def __call__(self, video: VspwVideo) -> Iterator[Prediction]:
        """The predictions as they are."""
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
        """Measure the frames of one interval, all of which the network has seen."""
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
                self.updated_fraction.add(share)
                self.similarity.update(w, before, next(now))

    def _read(self, frame: VspwFrame, grid: tuple[int, int]) -> Labels | None:
        """Labels at the centres of the grid's cells (h, w); None if the mask cannot be read, which the scores say."""
        if frame.mask is None:
            return None
        try:
            labels, _ = read_target(frame.mask, self._num_classes)
        except DataError:
            return None
        return np.asarray(cv2.resize(labels, grid[::-1], interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def _compared_labels(key_labels: Labels | None, result: NonKeyframes) -> list[Labels | None]:
    """For each frame, the keyframe's labels (h, w) at the positions that its own were compared with."""
    frames = len(result.similarity)
    if key_labels is None or result.shift is None:
        return [key_labels] * frames
    rows = result.shift.rows.view(frames, -1).cpu().numpy()  # of one keyframe: an interval is run at a time
    return [key_labels.ravel()[own].reshape(key_labels.shape) for own in rows]


def _share(part: np.int64, whole: np.int64) -> float | None:
    return percent(float(part / whole)) if whole else None
