"""Measuring several frames at a time gives what measuring one after the other gives, in the same order."""

from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.tiny_model import moving_images
from tfcseg.drawing.render import class_shares
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.labels.label_sets import ADE31
from tfcseg.media.frames import Frame
from tfcseg.metrics.consistency import ConsistencyMeter
from tfcseg.report.schema import FrameRow
from tfcseg.runs import results
from tfcseg.runs.results import FrameMeasurer
from tfcseg.runs.summary import Summary

IMAGES = moving_images(24, (96, 128))


def frames():
    for index, image in enumerate(IMAGES):
        labels = (image[..., 0] // 86).astype(np.uint8)
        similarity = None if index % 4 == 0 else np.full((2, 3), index / 100, np.float32)
        yield SegmentedFrame(index, index / 25, image, labels, index % 4 == 0, similarity, None, 1.5, False, ADE31)


def measured(measurer):
    """All frames, measured in order."""
    found = []
    for frame in frames():
        measurer.add(frame)
        found += measurer.finished()
    found += measurer.finished(0)
    measurer.close()
    return found


@pytest.mark.parametrize("cores", [1, 16])
def test_rows_are_those_of_a_single_meter(monkeypatch, cores):
    monkeypatch.setattr(results, "available_cores", lambda: cores)
    found = measured(FrameMeasurer(3, use_flow=True, unsure_below=0.5))
    meter = ConsistencyMeter()
    assert [frame.index for frame, *_ in found] == list(range(len(IMAGES)))
    for (_, shares, row), frame in zip(found, frames(), strict=True):
        wanted = meter.update(frame.image, frame.labels)
        assert (row.label_change, row.flow_consistency) == wanted
        assert row.similarity == (None if frame.is_keyframe else pytest.approx(frame.index / 100))
        assert shares.sum() == pytest.approx(1)
    assert any(row.flow_consistency is not None for *_, row in found)


@pytest.mark.parametrize("preset", ["medium", "fast"])
def test_images_may_be_followed_before_labels_are_known(preset):
    measurer = FrameMeasurer(3, use_flow=True, unsure_below=0.5, preset=preset)
    for index, image in enumerate(IMAGES):
        measurer.follow(Frame(index, index / 25, image, is_held=False))
    found = measured(measurer)
    meter = ConsistencyMeter(preset=preset)
    for (*_, row), frame in zip(found, frames(), strict=True):
        wanted = meter.update(frame.image, frame.labels)
        assert (row.label_change, row.flow_consistency) == wanted
    assert measurer.flow_name == f"opencv-dis-{preset}-160"


def test_what_stands_for_dropped_frames_is_not_measured():
    """Other repeats are: nothing changes there, and that was seen."""
    measurer = FrameMeasurer(3, use_flow=True, unsure_below=0.5)
    first, second, third, *_ = frames()
    held = {"image": first.image, "labels": first.labels, "model_ms": None, "is_held": True}
    for frame in (first, replace(second, **held), replace(third, **held, is_stand_in=True), second):
        measurer.add(frame)
    rows = [row for *_, row in measurer.finished(0)]
    measurer.close()
    wanted = measured(FrameMeasurer(3, use_flow=True, unsure_below=0.5))[1][2]
    compared = [(row.label_change, row.flow_consistency) for row in rows]
    last = wanted.label_change, wanted.flow_consistency
    assert compared == [(None, None), (0, 1), (None, None), last]


def test_shares_are_those_of_a_full_count():
    """However many pixels change from one frame to the next."""
    measurer = FrameMeasurer(3, use_flow=False, unsure_below=0.5)
    first = next(frames())
    labels = first.labels
    for rows in (0, 0, 1, 5, 96, 2, 0):
        labels = labels.copy()
        labels[:rows] = (labels[:rows] + 1) % 4
        shares = measurer.add(replace(first, labels=labels))
        assert np.array_equal(shares, class_shares(labels, 3))
    measurer.close()


def test_no_more_than_a_few_frames_wait():
    measurer = FrameMeasurer(3, use_flow=True, unsure_below=0.5)
    waiting = 0
    for frame in frames():
        measurer.add(frame)
        waiting += 1 - len(list(measurer.finished(3)))
        assert waiting <= 3
    assert len(list(measurer.finished(0))) == waiting
    measurer.close()


@pytest.mark.parametrize(("has_flow", "pulse"), [(True, 1), (False, 2)])
def test_cuts_are_no_label_change_and_no_pulse(has_flow, pulse):
    """They are where the flow can follow nothing; without flow, nobody knows."""
    summary = Summary(np.zeros(3))
    for index in range(12):
        is_cut, is_keyframe = index == 6, index % 3 == 0
        change = 1.0 if is_cut else 0.1 if index else None
        flow = 0.9 if has_flow and index and not is_cut else None
        row = FrameRow(index, 0.0, is_keyframe, None, None, change, flow, 20.0)
        summary.add(row, np.zeros(3), is_cut=has_flow and is_cut)
    assert summary.phases.pulse == pytest.approx(pulse)
    assert summary.mean("label_change") == pytest.approx(0.1 if has_flow else 2 / 11)
    assert summary.cuts == has_flow


@pytest.mark.parametrize(
    ("size", "use_flow", "cuts"), [((96, 128), True, [1, 3]), ((96, 128), False, []), ((8, 8), True, [])]
)
def test_cuts_are_where_the_flow_can_follow_nothing(size, use_flow, cuts):
    """Also at the second frame; frames that are too small for the flow may show anything."""
    scenes = [np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8) for seed in (2, 3, 3, 4)]
    measurer = FrameMeasurer(3, use_flow=use_flow, unsure_below=0.5)
    found = []
    for index, (image, frame) in enumerate(zip(scenes, frames(), strict=False)):
        measurer.add(replace(frame, image=image, labels=np.full(size, index % 3, np.uint8)))
        found += [row.frame for *_, row in measurer.finished(0) if measurer.is_cut(row)]
    measurer.close()
    assert found == cuts
