"""Metrics by hand, by properties, and against a slow and obvious re-implementation of metrics' definitions."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tfcseg.errors import DataError, UsageError
from tfcseg.evaluation.scope import PROTOCOLS
from tfcseg.metrics.scores import (
    ConfusionMatrix,
    Mean,
    VideoConsistency,
    WindowScores,
    class_iou,
    joint_histogram,
    mean_iou,
    only_targets,
    pixel_accuracy,
    weighted_iou,
)

Labels = NDArray[np.uint8]
VOID = 255

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Examples may take as long as they like: the machine may have other things to do."""


def labels(*rows: list[int]) -> Labels:
    return np.array(rows, dtype=np.uint8)


def count(num_classes: int, *frames: tuple[Labels, Labels]) -> NDArray[np.int64]:
    matrix = ConfusionMatrix(num_classes)
    for target, prediction in frames:
        matrix.update(target, prediction)
    return matrix.counts


def consistency(
    frames: list[tuple[Labels, Labels]], n: int, protocol: str, gaps: frozenset[int] = frozenset()
) -> WindowScores:
    """VC_n of a video; ``gaps`` are the frames before which others are missing."""
    meter = VideoConsistency([n], protocol)
    for index, (target, prediction) in enumerate(frames):
        meter.update(target, prediction, after_gap=index in gaps)
    return meter.result()[n]


# ------------------------------------------------------------------------------------------------------------- by hand


def test_scores_of_six_pixels_by_hand():
    target = labels([0, 0, 1], [1, VOID, 2])
    prediction = labels([0, 1, 1], [1, 3, VOID])
    counts = count(4, (target, prediction))
    assert counts.tolist() == [[1, 1, 0, 0, 0], [0, 2, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(class_iou(counts), [1 / 2, 2 / 3, 0, np.nan])
    assert mean_iou(counts) == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert weighted_iou(counts) == pytest.approx((2 * 1 / 2 + 2 * 2 / 3 + 0) / 5)
    assert pixel_accuracy(counts) == 3 / 5


def test_false_positives_of_a_class_without_ground_truth_hurt_the_class_they_were_taken_from():
    counts = count(3, (labels([0, 0, 0, 0]), labels([0, 0, 2, 2])))
    np.testing.assert_array_equal(class_iou(counts), [1 / 2, np.nan, np.nan])
    assert mean_iou(counts) == 1 / 2


def test_ground_truth_outside_the_kept_classes_is_ignored():
    counts = count(3, (labels([0, 0, 1, 1]), labels([0, 0, 0, 2])))
    kept = only_targets(counts, np.array([True, False, True]))
    assert (mean_iou(counts), mean_iou(kept)) == ((2 / 3 + 0) / 2, 1)
    assert pixel_accuracy(kept) == 1


def test_scores_of_nothing_are_nan():
    counts = count(2, (labels([VOID, VOID]), labels([0, 1])))
    assert counts.sum() == 0
    assert all(math.isnan(score(counts)) for score in (mean_iou, weighted_iou, pixel_accuracy))


def test_counts_have_64_bits():
    matrix = ConfusionMatrix(1)
    matrix.counts[0, 0] = 2**62  # not representable in float64 once a pixel is added
    matrix.update(labels([0]), labels([0]))
    assert matrix.counts[0, 0] == 2**62 + 1


@pytest.mark.parametrize(
    ("target", "prediction", "message"),
    [
        ([0, 3], [0, 0], "target has value 3; classes go from 0 to 2, 255 = none"),
        ([0, 0], [0, 254], "prediction has value 254"),
        ([VOID, 0], [124, 0], "prediction has value 124"),  # wrong values hide nowhere, not even on void
    ],
)
def test_values_that_are_no_class_are_refused(target, prediction, message):
    with pytest.raises(DataError, match=message):
        count(3, (labels(target), labels(prediction)))


def test_sizes_have_to_agree():
    with pytest.raises(DataError, match="target is 1 by 2 but prediction is 1 by 3"):
        count(3, (labels([0, 0]), labels([0, 0, 0])))
    with pytest.raises(DataError, match="frame 1 of the video"):
        consistency([(labels([0, 0]), labels([0, 0])), (labels([0]), labels([0]))], 2, "vspw")


@pytest.mark.parametrize("classes", [0, 255])
def test_class_counts_that_do_not_fit_8_bits_are_refused(classes):
    with pytest.raises(UsageError, match=f"{classes} classes"):
        ConfusionMatrix(classes)


#            pixel: right  wrong  flicker  moves  void
_BY_HAND = [
    (labels([0, 0, 0, 0, VOID]), labels([0, 1, 0, 0, 1])),
    (labels([0, 0, 0, 0, VOID]), labels([0, 1, 1, 0, 1])),
    (labels([0, 0, 0, 1, VOID]), labels([0, 1, 0, 1, 1])),
    (labels([0, 0, 0, 1, VOID]), labels([0, 1, 0, 1, 1])),
]


def test_vc_of_five_pixels_by_hand_as_the_field_counts():
    # Windows of 2 start at frames 0 and 1; the one at 2 is dropped. Constant target: all five, then all but "moves".
    # Constant prediction among them: right, wrong, moves, void; then right, wrong, void.
    assert consistency(_BY_HAND, 2, "vspw") == WindowScores(Mean(4 / 5 + 3 / 4, 2), dropped_last=1)


def test_vc_of_five_pixels_by_hand_in_the_strict_protocol():
    # Constant target without void: 4, 3, 4 pixels; constant and right: right and moves; right; right, flicker, moves.
    assert consistency(_BY_HAND, 2, "strict") == WindowScores(Mean(2 / 4 + 1 / 3 + 3 / 4, 3))


def test_strict_windows_do_not_bridge_a_gap_and_vspw_windows_do():
    gaps = frozenset({2})
    assert consistency(_BY_HAND, 2, "strict", gaps) == WindowScores(Mean(2 / 4 + 3 / 4, 2), dropped_across_gap=1)
    assert consistency(_BY_HAND, 2, "vspw", gaps) == consistency(_BY_HAND, 2, "vspw")


def test_void_that_stays_void_is_a_constant_target_only_as_the_field_counts():
    frames = [(labels([VOID]), labels([index % 2])) for index in range(4)]
    assert consistency(frames, 3, "vspw") == WindowScores(Mean(0.0, 1), dropped_last=1)
    assert consistency(frames, 3, "strict") == WindowScores(Mean(0.0, 0), dropped_without_target=2)


def test_a_prediction_of_none_can_be_constant_but_never_right():
    frames = [(labels([0]), labels([VOID]))] * 4
    assert consistency(frames, 3, "vspw").vc == Mean(1.0, 1)
    assert consistency(frames, 3, "strict").vc == Mean(0.0, 2)


@pytest.mark.parametrize("frames", [0, 1, 7, 8, 9, 16, 17, 40])
def test_number_of_windows(frames):
    still = [(labels([0]), labels([0]))] * frames
    for n in (8, 16):
        assert consistency(still, n, "vspw").vc.count == max(0, frames - n)
        assert consistency(still, n, "strict").vc.count == max(0, frames - n + 1)


def test_runs_longer_than_any_counter_stay_constant():
    still = [(labels([0]), labels([0]))] * 600
    assert consistency(still, 255, "strict") == WindowScores(Mean(346.0, 346))


def test_frames_may_be_overwritten_after_they_were_added():
    meter = VideoConsistency([2], "strict")
    target, prediction = labels([0, 1]), labels([0, 1])
    for value in (0, 1, 0):
        target[:] = prediction[:] = value
        meter.update(target, prediction)
    assert meter.result()[2] == WindowScores(Mean(0.0, 0), dropped_without_target=2)


def test_memory_does_not_grow_with_the_video():
    frame = np.zeros((256, 256), dtype=np.uint8)
    meter = VideoConsistency([8, 16])
    tracemalloc.start()
    for _ in range(64):
        meter.update(frame, frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * frame.nbytes


def test_scoring_does_not_load_the_model():
    heavy = "{'torch', 'tfcseg.model.tfc'}"
    code = f"import sys, tfcseg.evaluation.evaluate; sys.exit(not {heavy}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -------------------------------------------------------------------------------- a slow and obvious re-implementation


def slow_counts(num_classes: int, frames: list[tuple[Labels, Labels]]) -> list[list[int]]:
    counts = [[0] * (num_classes + 1) for _ in range(num_classes)]
    for target, prediction in frames:
        for wanted, found in zip(target.ravel().tolist(), prediction.ravel().tolist(), strict=True):
            if wanted != VOID:
                counts[wanted][num_classes if found == VOID else found] += 1
    return counts


def slow_iou(counts: list[list[int]]) -> dict[int, float]:
    """IoU of the classes with ground truth."""
    found = {}
    for index, row in enumerate(counts):
        if sum(row):
            hits = row[index]
            false_positives = sum(other[index] for other in counts) - hits
            found[index] = hits / (sum(row) + false_positives)
    return found


def slow_vc(frames: list[tuple[Labels, Labels]], n: int, protocol: str, gaps: frozenset[int]) -> Iterator[float | None]:
    """VC of every window in use, None where no target pixel is constant."""
    starts = range(len(frames) - n) if protocol == "vspw" else range(len(frames) - n + 1)
    for start in starts:
        window = frames[start : start + n]
        if protocol == "strict" and any(index in gaps for index in range(start + 1, start + n)):
            continue
        constant = both = 0
        for pixel in np.ndindex(window[0][0].shape):
            wanted = [int(target[pixel]) for target, _ in window]
            found = [int(prediction[pixel]) for _, prediction in window]
            if len(set(wanted)) > 1 or (protocol == "strict" and wanted[0] == VOID):
                continue
            constant += 1
            both += len(set(found)) == 1 and (protocol == "vspw" or found[0] == wanted[0])
        yield both / constant if constant else None


@st.composite
def label_maps(draw: st.DrawFn, shape: tuple[int, int], num_classes: int) -> Labels:
    values = st.sampled_from([*range(num_classes), VOID])
    return np.array(draw(st.lists(values, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))).reshape(
        shape
    ).astype(np.uint8)  # fmt: skip


@st.composite
def videos(draw: st.DrawFn, max_frames: int = 9) -> list[tuple[Labels, Labels]]:
    """Videos in which most pixels stay as they are, so that windows have something in them; classes may be absent."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    num_classes = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    change = draw(st.sampled_from([0.0, 0.1, 0.5]))
    maps = [draw(label_maps(shape, num_classes)), draw(label_maps(shape, num_classes))]
    frames = []
    for _ in range(draw(st.integers(0, max_frames))):
        for index in range(2):
            fresh = rng.choice([*range(num_classes), VOID], size=shape).astype(np.uint8)
            maps[index] = np.where(rng.random(shape) < change, fresh, maps[index])
        frames.append((maps[0], maps[1]))
    return frames


GAPS = st.frozensets(st.integers(1, 8), max_size=3)
PROTOCOL = st.sampled_from(PROTOCOLS)
WINDOW = st.integers(2, 5)
NUM_CLASSES = 5
"""More than ``videos`` use, so that some classes are always absent."""


@unhurried
@given(videos())
def test_counts_and_scores_equal_the_slow_ones(frames):
    counts = count(NUM_CLASSES, *frames)
    expected = slow_counts(NUM_CLASSES, frames)
    assert counts.tolist() == expected
    iou = slow_iou(expected)
    assert {index: value for index, value in enumerate(class_iou(counts)) if not math.isnan(value)} == iou
    if iou:
        pixels = sum(map(sum, expected))
        assert mean_iou(counts) == pytest.approx(sum(iou.values()) / len(iou))
        assert weighted_iou(counts) == pytest.approx(sum(sum(expected[c]) * iou[c] for c in iou) / pixels)
        assert pixel_accuracy(counts) == pytest.approx(sum(expected[c][c] for c in iou) / pixels)


@settings(unhurried, max_examples=300)
@given(videos(), WINDOW, PROTOCOL, GAPS)
def test_vc_equals_the_slow_one(frames, n, protocol, gaps):
    scores = consistency(frames, n, protocol, gaps)
    expected = list(slow_vc(frames, n, protocol, gaps))
    counted = [value for value in expected if value is not None]
    assert scores.vc.count == len(counted)
    assert scores.dropped_without_target == len(expected) - len(counted)
    assert scores.vc.total == pytest.approx(sum(counted))


def test_joint_histogram_is_exact_on_noise():
    rng = np.random.default_rng(1)
    target, prediction = rng.integers(0, 256, (2, 97, 101), dtype=np.uint8)
    expected = np.zeros((256, 256), dtype=np.int64)
    np.add.at(expected, (target, prediction), 1)
    np.testing.assert_array_equal(joint_histogram(target, prediction), expected)


# ----------------------------------------------------------------------------------------------------------- properties


@unhurried
@given(videos(), st.permutations(range(NUM_CLASSES)), WINDOW, PROTOCOL, GAPS)
def test_the_order_of_the_classes_does_not_matter(frames, order, n, protocol, gaps):
    table = np.arange(256, dtype=np.uint8)
    table[:NUM_CLASSES] = order
    renamed = [(table[target], table[prediction]) for target, prediction in frames]
    counts, renamed_counts = count(NUM_CLASSES, *frames), count(NUM_CLASSES, *renamed)
    np.testing.assert_array_equal(class_iou(renamed_counts)[list(order)], class_iou(counts))
    for score in (mean_iou, weighted_iou, pixel_accuracy):
        np.testing.assert_array_equal(score(renamed_counts), score(counts))
    assert consistency(renamed, n, protocol, gaps) == consistency(frames, n, protocol, gaps)


@unhurried
@given(videos(), WINDOW, GAPS, st.integers(0, NUM_CLASSES - 1))
def test_predictions_on_void_do_not_matter(frames, n, gaps, value):
    changed = [(target, np.where(target == VOID, np.uint8(value), prediction)) for target, prediction in frames]
    np.testing.assert_array_equal(count(NUM_CLASSES, *changed), count(NUM_CLASSES, *frames))
    assert consistency(changed, n, "strict", gaps) == consistency(frames, n, "strict", gaps)


@unhurried
@given(videos(), videos(), WINDOW, PROTOCOL)
def test_videos_pool_by_windows_and_pixels(first, second, n, protocol):
    np.testing.assert_array_equal(
        count(NUM_CLASSES, *first) + count(NUM_CLASSES, *second), count(NUM_CLASSES, *first, *second)
    )
    parts = [consistency(frames, n, protocol) for frames in (first, second)]
    pooled = WindowScores.pool(parts)
    assert pooled == WindowScores.pool(reversed(parts))
    assert pooled.vc.count == parts[0].vc.count + parts[1].vc.count
    assert pooled.vc.total == parts[0].vc.total + parts[1].vc.total
    windows = [v for frames in (first, second) for v in slow_vc(frames, n, protocol, frozenset()) if v is not None]
    if windows:
        assert pooled.vc.value == pytest.approx(sum(windows) / len(windows))


@unhurried
@given(videos(), WINDOW, PROTOCOL, GAPS)
def test_every_window_is_counted_or_dropped(frames, n, protocol, gaps):
    scores = consistency(frames, n, protocol, gaps)
    assert scores.vc.count + scores.dropped == max(0, len(frames) - n + 1)
    assert scores.dropped_last == (protocol == "vspw" and len(frames) >= n)
    assert 0 <= scores.vc.total <= scores.vc.count


@unhurried
@given(videos(), WINDOW)
def test_a_strict_gap_splits_a_video_in_two(frames, n):
    cut = len(frames) // 2
    if cut:
        split = WindowScores.pool(consistency(part, n, "strict") for part in (frames[:cut], frames[cut:]))
        whole = consistency(frames, n, "strict", frozenset({cut}))
        assert whole.vc.total == pytest.approx(split.vc.total)
        assert (whole.vc.count, whole.dropped_without_target) == (split.vc.count, split.dropped_without_target)


@unhurried
@given(videos(), PROTOCOL)
def test_several_windows_at_once_equal_each_alone(frames, protocol):
    meter = VideoConsistency([2, 3, 5], protocol)
    for target, prediction in frames:
        meter.update(target, prediction)
    assert meter.result() == {n: consistency(frames, n, protocol) for n in (2, 3, 5)}


@unhurried
@given(videos(), WINDOW)
def test_ground_truth_is_perfect(frames, n):
    perfect = [(target, target) for target, _ in frames]
    for protocol in PROTOCOLS:
        scores = consistency(perfect, n, protocol)
        assert scores.vc.total == scores.vc.count
    counts = count(NUM_CLASSES, *perfect)
    if counts.sum():
        assert mean_iou(counts) == weighted_iou(counts) == pixel_accuracy(counts) == 1
