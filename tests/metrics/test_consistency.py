"""Stability from frame to frame, on motion whose answer is known."""

import cv2
import numpy as np
import pytest

from tfcseg.errors import InputError
from tfcseg.metrics.consistency import ConsistencyMeter, PhaseChanges, StabilityScores

SIZE = (160, 240)


def texture(size, seed=0, blur_px=2.0):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), blur_px), None, 0, 255, cv2.NORM_MINMAX)


def checkers(size, side=24):
    rows, columns = np.indices(size) // side
    return ((rows + 2 * columns) % 5).astype(np.uint8)


def moving(step_px, frames=4, size=SIZE):
    """A wide picture and its labels seen through a window that moves ``step_px`` a frame."""
    wide = (size[0], size[1] + step_px * frames)
    image, labels = texture(wide), checkers(wide)
    for start in range(0, step_px * frames, step_px):
        yield image[:, start : start + size[1]].copy(), labels[:, start : start + size[1]].copy()


def measure(pairs, **options):
    meter = ConsistencyMeter(**options)
    return [meter.update(image, labels) for image, labels in pairs]


def test_first_frame_has_nothing_to_compare():
    assert measure([(texture(SIZE), checkers(SIZE))]) == [(None, None)]


def test_still_clip_is_perfectly_consistent():
    still = (texture(SIZE), checkers(SIZE))
    assert measure([still, still, still])[1:] == [(0.0, 1.0), (0.0, 1.0)]


def test_labels_that_move_with_the_picture_change_but_are_consistent():
    for label_change, flow_consistency in measure(moving(step_px=6))[1:]:
        assert label_change > 0.15
        assert flow_consistency > 0.99


def test_labels_that_stay_while_the_picture_moves_are_inconsistent():
    labels = checkers(SIZE)
    for label_change, flow_consistency in measure((image, labels) for image, _ in moving(step_px=6))[1:]:
        assert label_change == 0.0
        assert flow_consistency == pytest.approx(
            1 - 6 / 24, abs=0.03
        )  # a strip of 6 in every 24 columns has another class


def test_scores_leave_cuts_out():
    scenes = [*moving(step_px=6), (texture(SIZE, seed=1, blur_px=0.1), 9 - checkers(SIZE))]
    within, across, blind = StabilityScores(), StabilityScores(), StabilityScores(use_flow=False)
    for scores, pairs in ((within, scenes[:-1]), (across, scenes), (blind, scenes)):
        for image, labels in pairs:
            scores.update(image, labels)
    assert across.means() == within.means()
    assert blind.means()["label_change"].value > within.means()["label_change"].value + 0.1


def test_flickering_labels_are_inconsistent():
    rng = np.random.default_rng(3)
    image = texture(SIZE)
    for label_change, flow_consistency in measure((image, rng.integers(0, 5, SIZE, dtype=np.uint8)) for _ in range(3))[
        1:
    ]:
        assert label_change == pytest.approx(0.8, abs=0.02)
        assert flow_consistency == pytest.approx(0.2, abs=0.02)


def test_uncovered_background_does_not_count():
    """A square jumps; behind it new labels come to light that nothing could have predicted."""
    background, square = texture(SIZE, seed=1), texture((60, 60), seed=2)
    labels = np.zeros(SIZE, dtype=np.uint8)
    pairs = []
    for left in (60, 72):
        image, frame_labels = background.copy(), labels.copy()
        image[50:110, left : left + 60], frame_labels[50:110, left : left + 60] = square, 1
        pairs.append((image, frame_labels))
    pairs[1][1][50:110, 60:72] = 2  # the strip that the square has left: a class never seen before
    uncovered = 60 * 12 / (SIZE[0] * SIZE[1])
    (_, result) = measure(pairs)
    assert result.label_change == pytest.approx(2 * uncovered, rel=0.01)
    assert 1 - result.flow_consistency < uncovered / 3


def test_pixels_that_enter_the_frame_do_not_count():
    pairs = list(moving(step_px=16, frames=2))
    pairs[1][1][:, -15:] = 7  # what comes in at the right edge has a class of its own
    assert measure(pairs)[1].flow_consistency > 0.99


def test_a_cut_has_no_flow_consistency():
    pairs = [(texture(SIZE), checkers(SIZE)), (255 - texture(SIZE), checkers(SIZE))]
    label_change, flow_consistency = measure(pairs)[1]
    assert label_change == 0.0
    assert flow_consistency is None


def test_flow_is_computed_at_a_bounded_size():
    """Labels finer than the flow's grid are compared on that grid, so the full-size flicker is only in label_change."""
    image = texture((480, 720), blur_px=6.0)
    labels = checkers((480, 720))
    flickering = labels.copy()
    flickering[::480, :] = 9  # a line one pixel high in the first row, between the samples of a grid of 1/4
    _, result = measure([(image, labels), (image, flickering)], flow_short_side_px=120)
    assert result.label_change == pytest.approx(1 / 480)
    assert result.flow_consistency == 1.0


@pytest.mark.parametrize("step_px", [3, 12])  # 1 and 4 pixels where the flow is computed
def test_tc_of_a_large_frame_follows_the_motion(step_px):
    pairs = list(moving(step_px, frames=2, size=(480, 640)))
    assert measure(pairs)[1].flow_consistency > 0.97


def test_without_flow_only_the_change_is_measured():
    meter = ConsistencyMeter(use_flow=False)
    meter.update(texture(SIZE), checkers(SIZE))
    changed = checkers(SIZE)
    changed[:80] = 9
    assert meter.update(texture(SIZE), changed) == (0.5, None)
    assert meter.flow_name is None


def test_flow_is_named_with_its_size():
    assert ConsistencyMeter(flow_short_side_px=200).flow_name == "opencv-dis-medium-200"


@pytest.mark.parametrize("size", [(1, 1), (11, 300), (16, 16), (2000, 12), (1, 3000)])
def test_tiny_and_narrow_frames(size):
    still = (texture(size), np.zeros(size, dtype=np.uint8))
    result = measure([still, still])[1]
    assert result.label_change == 0.0
    assert result.flow_consistency in (None, 1.0)


def test_labels_may_be_reused_by_the_caller():
    meter = ConsistencyMeter(use_flow=False)
    labels = checkers(SIZE)
    meter.update(texture(SIZE), labels)
    labels[:] = 9
    assert meter.update(texture(SIZE), labels).label_change == 1.0


def test_change_of_size_is_refused():
    meter = ConsistencyMeter()
    meter.update(texture(SIZE), checkers(SIZE))
    with pytest.raises(InputError, match="size"):
        meter.update(texture((100, 100)), checkers((100, 100)))


def pulse_of(frames):
    """Of (is it a keyframe, label change) of each frame."""
    phases = PhaseChanges()
    for is_keyframe, label_change in frames:
        phases.add(is_keyframe=is_keyframe, label_change=label_change)
    return phases.pulse


def test_pulse_counted_by_hand():
    # Interval 3: keyframes change 0.6 and 0.4, the next frames 0.1 and 0.1, the third ones 0.2 and 0.2.
    frames = [(True, None), (False, 0.1), (False, 0.2), (True, 0.6), (False, 0.1), (False, 0.2), (True, 0.4)]
    assert pulse_of(frames) == pytest.approx(0.5 / ((0.5 + 0.1 + 0.2) / 3))


def test_a_later_first_keyframe_shifts_phases_only():
    changes = [0.1, 0.2, 0.6] * 5
    later = [(index % 3 == 1, change) for index, change in enumerate(changes)]
    assert pulse_of(later) == pytest.approx(2)


def test_a_steady_change_has_no_pulse():
    assert pulse_of([(index % 4 == 0, 0.25) for index in range(20)]) == pytest.approx(1)


def test_pulse_needs_phases_and_changes():
    assert pulse_of([]) is None
    assert pulse_of([(True, 0.1)] * 9) is None  # keyframes only
    assert pulse_of([(False, 0.1)] * 9) is None
    assert pulse_of([(index % 3 == 0, 0.0) for index in range(9)]) is None


def test_one_long_interval_among_many_does_not_count():
    short = [(index % 2 == 0, 0.1) for index in range(60)]
    assert pulse_of([*short, (True, 0.1), (False, 0.1), (False, 0.9), (False, 0.9)]) == pytest.approx(1)
