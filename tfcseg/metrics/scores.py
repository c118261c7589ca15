"""Scores of labels against ground truth: exact counts, streaming accumulators, one definition per function.

Letters: K classes, H W image, L frames of a video, n frames of a window. Labels are uint8 class indices with 255
(``NO_CLASS``) for "none": void in a target, no counterpart in a prediction. Scores are shares from 0 to 1, and NaN if
there is nothing to score. Nothing here knows about files or models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, UsageError
from tfcseg.labels.label_sets import NO_CLASS

Labels: TypeAlias = NDArray[np.uint8]
Counts: TypeAlias = NDArray[np.int64]

VC_WINDOWS = (8, 16)  # window lengths n that are usually reported


def joint_histogram(target: Labels, prediction: Labels) -> Counts:
    """(256, 256) pixel counts: entry [a, b] is the number of pixels with target value a and predicted value b."""
    if target.shape != prediction.shape:
        raise DataError(f"target is {_size(target)} but prediction is {_size(prediction)}; score at the target's size")
    pairs = target.ravel().astype(np.uint16) << 8 | prediction.ravel()
    return np.bincount(pairs, minlength=1 << 16).reshape(256, 256)


class ConfusionMatrix:
    """Pixel counts over any number of frames; void target pixels are left out. ``counts`` is (K, K + 1) int64: row =
    target class, column = predicted class, last column = predicted none."""

    def __init__(self, num_classes: int) -> None:
        if not 0 < num_classes < NO_CLASS:
            raise UsageError(f"{num_classes} classes cannot be counted in 8-bit labels; 1 to {NO_CLASS - 1} can")
        self.num_classes = num_classes
        self.counts: Counts = np.zeros((num_classes, num_classes + 1), dtype=np.int64)

    def update(self, target: Labels, prediction: Labels) -> None:
        """Add one frame, (H, W) each. A value that is neither a class nor 255 raises DataError, even on void pixels."""
        joint = joint_histogram(target, prediction)
        _refuse_stray(joint.sum(axis=1), self.num_classes, "target")
        _refuse_stray(joint.sum(axis=0), self.num_classes, "prediction")
        self.counts[:, :-1] += joint[: self.num_classes, : self.num_classes]
        self.counts[:, -1] += joint[: self.num_classes, NO_CLASS]


def _refuse_stray(pixels_by_value: Counts, num_classes: int, what: str) -> None:
    stray = np.flatnonzero(pixels_by_value[num_classes:NO_CLASS])
    if stray.size:
        raise DataError(
            f"{what} has value {num_classes + stray[0]}; classes go from 0 to {num_classes - 1}, {NO_CLASS} = none"
        )


def _size(labels: Labels) -> str:
    return " by ".join(str(length) for length in labels.shape)


def class_iou(counts: Counts) -> NDArray[np.float64]:
    """(K,) ``IoU_c = TP / (TP + FP + FN)``; NaN for classes without ground-truth pixels."""
    true_positives = np.diagonal(counts)
    in_target = counts.sum(axis=1)
    union = in_target + counts[:, :-1].sum(axis=0) - true_positives
    return np.where(in_target > 0, true_positives / np.maximum(union, 1), np.nan)


def mean_iou(counts: Counts) -> float:
    """MIoU: mean of IoU_c over the classes that have ground-truth pixels. A false positive of a class without ground
    truth still lowers the class it was taken from."""
    iou = class_iou(counts)
    counted = iou[~np.isnan(iou)]
    # fsum rounds once, so the order of the classes cannot change the last bit.
    return math.fsum(counted) / counted.size if counted.size else math.nan


def weighted_iou(counts: Counts) -> float:
    """WIoU: sum of ``freq_c · IoU_c``, ``freq_c`` being the class's share of ground-truth pixels."""
    in_target = counts.sum(axis=1)
    total = int(in_target.sum())
    if not total:
        return math.nan
    seen = in_target > 0
    return math.fsum(in_target[seen] * class_iou(counts)[seen]) / total


def pixel_accuracy(counts: Counts) -> float:
    """Share of ground-truth pixels whose predicted class is right."""
    total = int(counts.sum())
    return int(np.trace(counts)) / total if total else math.nan


def only_targets(counts: Counts, kept: NDArray[np.bool_]) -> Counts:
    """Leave out the ground truth of classes outside ``kept`` (K,), as if it were void."""
    return np.where(kept[:, None], counts, 0)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean that can be pooled exactly: a sum and a count."""

    total: float = 0.0
    count: int = 0

    @property
    def value(self) -> float:
        """The mean; NaN of nothing."""
        return self.total / self.count if self.count else math.nan

    @staticmethod
    def of(values: Sequence[float]) -> Mean:
        """Mean of ``values``."""
        return Mean(math.fsum(values), len(values))

    @staticmethod
    def pool(parts: Iterable[Mean]) -> Mean:
        """Mean over all values of all parts; rounded once, so the order of the parts does not matter."""
        parts = list(parts)
        return Mean(math.fsum(part.total for part in parts), sum(part.count for part in parts))


@dataclass(frozen=True, slots=True)
class WindowScores:
    """VC_n over windows. Every n successive frames of a video are one window, counted in ``vc`` or dropped."""

    vc: Mean
    dropped_last: int = 0  # protocol ``vspw``: the last window of each video, which the official script leaves out
    dropped_across_gap: int = 0  # protocol ``strict``: windows with a missing frame inside
    dropped_without_target: int = 0  # windows in which no target pixel is constant

    @property
    def dropped(self) -> int:
        """How many are left out."""
        return self.dropped_last + self.dropped_across_gap + self.dropped_without_target

    @staticmethod
    def pool(parts: Iterable[WindowScores]) -> WindowScores:
        """Scores over all windows of all parts."""
        parts = list(parts)
        return WindowScores(
            Mean.pool(part.vc for part in parts),
            sum(part.dropped_last for part in parts),
            sum(part.dropped_across_gap for part in parts),
            sum(part.dropped_without_target for part in parts),
        )


class VideoConsistency:
    """VC_n of one video, for several n (2 to 255) at once, in a few passes per frame and with memory of two frames.

    For a window of n frames, ``VC = |{target constant} ∩ {prediction constant}| / |{target constant}|`` over pixels;
    VC_n is the mean over windows. Two protocols:

    ``vspw`` (what the field publishes): windows start at 0 … L−n−1, so the last one is dropped; the prediction has to
    be constant, not right; void that stays void is a constant target; missing frames are ignored.

    ``strict``: all L−n+1 windows; void pixels left out; the prediction has to be constant and right; a window with a
    missing frame inside is dropped.

    In both, windows without any constant target are dropped.

    Instead of comparing n frames per window, every pixel carries the length of its run of unchanged labels up to now:
    the window of n frames that ends now is constant there if that run has n frames or more.
    """

    def __init__(self, windows: Sequence[int] = VC_WINDOWS, protocol: str = "vspw") -> None:
        self._protocol = protocol
        self._totals = dict.fromkeys(windows, 0.0)
        self._counts: dict[int, Counter[str]] = {n: Counter() for n in windows}
        self._longest = max(windows)  # runs stop growing there: no window needs more, and uint8 is enough
        self._frames = 0
        self._unbroken_frames = 0
        nothing: Labels = np.empty(0, np.uint8)
        self._target, self._prediction, self._target_run, self._prediction_run = (nothing,) * 4

    def update(self, target: Labels, prediction: Labels, *, after_gap: bool = False) -> None:
        """Add the next frame, (H, W) each; ``after_gap`` means that frames are missing before it."""
        if self._frames == 0:
            self._target, self._prediction, self._target_run, self._prediction_run = (
                np.zeros_like(target) for _ in range(4)
            )
        if not target.shape == prediction.shape == self._target.shape:
            raise DataError(
                f"frame {self._frames} of the video has a target of {_size(target)} and a prediction of "
                f"{_size(prediction)}, but the video began with {_size(self._target)}"
            )
        if self._protocol == "vspw":
            # Windows that ended with the previous frame: the one that ends with the last frame is never counted.
            self._count_windows()
            self._extend(self._target_run, unchanged=target == self._target)
            self._extend(self._prediction_run, unchanged=prediction == self._prediction)
        else:
            if after_gap:
                self._unbroken_frames = 0  # runs may continue: a window after the gap needs only its own n frames
            right = prediction == target
            self._extend(self._target_run, unchanged=target == self._target, present=target != NO_CLASS)
            # Where the target is constant, a prediction that is always right is constant, too.
            self._extend(self._prediction_run, unchanged=right, present=right)
        np.copyto(self._target, target)
        np.copyto(self._prediction, prediction)
        self._frames += 1
        self._unbroken_frames += 1
        if self._protocol == "strict":
            self._count_windows()

    def result(self) -> dict[int, WindowScores]:
        """Scores by n, as if the video ended here."""
        return {
            n: WindowScores(
                Mean(self._totals[n], counts["counted"]),
                dropped_last=int(self._protocol == "vspw" and self._frames >= n),
                dropped_across_gap=counts["across gap"],
                dropped_without_target=counts["without target"],
            )
            for n, counts in self._counts.items()
        }

    def _extend(self, run: Labels, *, unchanged: NDArray[np.bool_], present: NDArray[np.bool_] | None = None) -> None:
        """Advance runs by one frame, in place: a changed label starts a run of 1, an absent one has a run of 0."""
        run *= unchanged
        grows = run < self._longest
        run += grows if present is None else grows & present

    def _count_windows(self) -> None:
        for n, counts in self._counts.items():
            if self._frames < n:
                continue
            if self._unbroken_frames < n:
                counts["across gap"] += 1
                continue
            target_constant = int(np.count_nonzero(self._target_run >= n))
            if target_constant == 0:
                counts["without target"] += 1
                continue
            both_constant = int(np.count_nonzero(np.minimum(self._target_run, self._prediction_run) >= n))
            self._totals[n] += both_constant / target_constant
            counts["counted"] += 1


def percent(share: float) -> float | None:
    """Turn a share into 0 to 100, and NaN into None."""
    return None if math.isnan(share) else 100 * share
