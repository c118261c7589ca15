"""Which frames an evaluation shows, and their pictures."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from tfcseg.evaluation.result import WorstFrames, colour_key, draw_frame, unpack, worst_of
from tfcseg.labels.label_sets import NO_CLASS, LabelSet
from tfcseg.metrics.scores import ConfusionMatrix

LABELS = LabelSet("three", ("sky", "road", "car"), ((0, 0, 255), (90, 90, 90), (255, 0, 0)))


def offer(worst, frame, target, prediction):
    matrix = ConfusionMatrix(3)
    matrix.update(target, prediction)
    worst.offer(frame, Path("none.jpg"), matrix.counts, target, prediction)


def labels_of(*rows):
    return np.array(rows, np.uint8)


def test_a_frame_counted_by_hand():
    worst = WorstFrames("hills", np.array([True, True, False]))
    target = labels_of([0, 0, 0, 0], [1, 1, 2, NO_CLASS])
    offer(worst, "00000166", target, labels_of([0, 0, 0, 1], [1, NO_CLASS, 1, 0]))
    (found,) = worst.frames()
    assert found.wrong == pytest.approx(2 / 6)  # of four of sky and two of road; cars cannot be predicted
    assert found.confusions == ((0, 1, 1 / 8), (1, 3, 1 / 8))
    assert np.array_equal(unpack(found.target), target)


def test_one_frame_a_second_and_no_perfect_one():
    worst = WorstFrames("hills", np.ones(3, np.bool_))
    target = np.zeros((4, 10), np.uint8)
    for index in range(45):
        prediction = target.copy()
        prediction.flat[: index % 15 if index < 30 else 0] = 1
        offer(worst, f"{index:08d}", target, prediction)
    assert [each.frame for each in worst.frames()] == ["00000014", "00000029"]


def test_every_video_comes_before_one_has_two():
    videos = []
    for name, wrong in (("good", 1), ("bad", 8)):
        worst = WorstFrames(name, np.ones(3, np.bool_))
        for index in range(30):
            prediction = np.zeros((1, 10), np.uint8)
            prediction[0, : wrong + index // 15] = 2
            offer(worst, f"{index}", np.zeros((1, 10), np.uint8), prediction)
        videos.append(worst.frames())
    assert [each.video for each in worst_of(videos, 2)] == ["bad", "good"]
    assert [each.video for each in worst_of(videos, 3)] == ["bad", "bad", "good"]


def test_pictures_show_frame_truth_prediction_and_what_is_wrong(tmp_path):
    image = np.full((40, 60, 3), 128, np.uint8)
    cv2.imwrite(str(tmp_path / "frame.png"), image)
    target, prediction = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    prediction[:, 30:] = 2
    target[:20, 30:] = NO_CLASS
    drawn = draw_frame(tmp_path / "frame.png", target, prediction, LABELS)
    jpegs = {title: base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) for title, url in drawn.items()}
    pictures = {title: cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)[..., ::-1] for title, jpeg in jpegs.items()}
    assert list(pictures) == ["Frame", "Truth", "Prediction", "Wrong"]
    assert np.abs(pictures["Frame"].astype(int) - image).max() < 4
    assert pictures["Prediction"][10, 50, 0] > 180 > pictures["Prediction"][10, 10, 0]
    reds = pictures["Wrong"][..., 0].astype(int) - pictures["Wrong"][..., 2]
    assert (reds[25:, 35:] > 100).all()
    assert (reds[:, :25] < 20).all()
    assert (reds[:15, 35:] < 20).all()  # void is not wrong


def test_the_key_names_what_is_to_be_seen():
    prediction = np.zeros((10, 10), np.uint8)
    prediction[0, 0] = 1  # one percent
    prediction[5:] = 2
    assert [each["name"] for each in colour_key([prediction], LABELS)] == ["sky", "car"]
