"""Frames that show the picture of the one before again: they get its result, and the network does not see them."""

import csv
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfcseg
from tests.helpers.media import LOSSLESS, write_video
from tests.helpers.tiny_model import build_tiny_model, moving_images
from tests.runs.test_resume_after_kill import assert_same_results
from tfcseg import Frame
from tfcseg.inference import groups
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.media import writer as video_writer
from tfcseg.media.masks import read_mask
from tfcseg.runs.state import unfinished_frames

MODEL = build_tiny_model()
IMAGES = moving_images(9)


def segment(images, **options):
    return list(tfcseg.segment(images, MODEL, **options))


def facts(frame):
    similarity = None if frame.similarity is None else frame.similarity.tobytes()
    return frame.labels.tobytes(), frame.is_keyframe, frame.updated_fraction, similarity


def shown(times):
    """Frames of ``IMAGES``, each as often as ``times`` says, in arrays of their own."""
    images = [image.copy() for image, count in zip(IMAGES, times, strict=False) for _ in range(count)]
    return [Frame(index, index / 25, image, is_held=False) for index, image in enumerate(images)]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=9), st.sampled_from(["normal", "low"]))
def test_repeats_change_no_result(times, latency):
    """Labels are those of the video without its repeats: intervals count pictures."""
    wanted = segment(IMAGES[: len(times)], latency=latency, sides="past")
    found = segment(shown(times), latency=latency, sides="past")
    assert [frame.index for frame in found] == list(range(sum(times)))
    rest = iter(found)
    for count, own in zip(times, wanted, strict=True):
        first, *others = (next(rest) for _ in range(count))
        assert facts(first) == facts(own)
        assert (first.is_held, first.model_ms is None) == (False, False)
        for frame in others:
            assert frame.image is first.image
            assert frame.labels is first.labels
            assert (facts(frame), frame.is_held, frame.model_ms) == (facts(own), True, None)


@pytest.mark.parametrize("latency", ["normal", "low"])
def test_the_network_sees_each_picture_once(monkeypatch, latency):
    seen = []
    convert = IntervalNetwork.to_input
    monkeypatch.setattr(
        IntervalNetwork, "to_input", lambda self, images: (seen.extend(images), convert(self, images))[1]
    )
    segment(shown([5, 1, 30, 2, 1]), latency=latency)
    assert len(seen) == 5


def test_low_latency_waits_for_nothing():
    taken = []
    frames = (taken.append(frame.index) or frame for frame in shown([2, 3, 1]))
    for frame in tfcseg.segment(frames, MODEL, latency="low"):
        assert taken[-1] == frame.index


def test_one_buffer_for_all_frames_is_no_still_picture():
    def frames():
        buffer = np.empty_like(IMAGES[0])
        for image in IMAGES:
            buffer[:] = image
            yield buffer

    assert [facts(frame) for frame in segment(frames())] == [facts(frame) for frame in segment(IMAGES)]


def test_a_picture_that_differs_in_one_byte_is_another():
    other = IMAGES[0].copy()
    assert groups.is_same_picture(IMAGES[0], other)
    other[1, -1, 2] ^= 1
    assert not groups.is_same_picture(IMAGES[0], other)
    assert not groups.is_same_picture(IMAGES[0], IMAGES[0][:-1])


def test_a_still_picture_is_computed_anew_now_and_then(monkeypatch):
    monkeypatch.setattr(groups, "MOST_FRAMES", 3)
    for latency in ("normal", "low"):
        found = segment(shown([8]), latency=latency)
        assert [frame.model_ms is None for frame in found] == [False, True, True, False, True, True, False, True]


# The whole run.


@pytest.fixture
def still(tmp_path, monkeypatch):
    """A video of 20 frames that show nine pictures, written in parts of four frames."""
    monkeypatch.setattr(video_writer, "PART_FRAMES", 4)
    images = [frame.image for frame in shown([1, 1, 5, 1, 1, 3, 6, 1, 1])]
    return write_video(tmp_path / "still.mkv", images, video=LOSSLESS)


def test_rows_masks_and_report(still, tmp_path):
    report = tfcseg.run(still, tmp_path / "out", MODEL)
    with (tmp_path / "out" / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # A part begins with a picture of its own: what comes after it must not need what was before.
    computed = [index for index, row in enumerate(rows) if row["model_ms"]]
    assert computed == [0, 1, 2, 4, 7, 8, 9, 12, 16, 18, 19]
    for before, row in itertools.pairwise(rows):
        if not row["model_ms"]:
            same = ("is_keyframe", "similarity", "updated_fraction")
            assert [row[name] for name in same] == [before[name] for name in same]
            assert (row["is_held"], float(row["label_change"]), float(row["flow_consistency"])) == ("1", 0, 1)
            masks = [read_mask(tmp_path / "out" / "masks" / f"{int(each['frame']):08d}.png") for each in (before, row)]
            assert (masks[0] == masks[1]).all()
    assert (report.input.frames_decoded, report.input.frames_repeated) == (20, 9)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["input"]["frames_repeated"] == 9


@pytest.mark.parametrize("latency", ["normal", "low"])
@pytest.mark.parametrize("at", [5, 10, 14, 17])
def test_resumed_runs_end_alike(still, tmp_path, at, latency):
    tfcseg.run(still, tmp_path / "whole", MODEL, sides="past", latency=latency)

    def stop(frame, info):
        if frame.index == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tfcseg.run(still, tmp_path / "out", MODEL, sides="past", latency=latency, on_frame=stop)
    assert unfinished_frames(tmp_path / "out") is not None
    tfcseg.run(still, tmp_path / "out", MODEL, sides="past", latency=latency, resume=True)
    assert_same_results(tmp_path / "out", tmp_path / "whole")
