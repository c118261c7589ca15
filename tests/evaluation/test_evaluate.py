"""Whole evaluations on synthetic VSPW folders, in one process and in two."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers import vspw_fixture as fixture
from tests.helpers.vspw_fixture import (
    CAR,
    GRASS,
    SKY,
    TREE,
    VOID,
    image_path,
    make_vspw,
    mask_path,
    targets,
    write_predictions,
)
from tfcseg.errors import DataError, InputError, OutputError, UsageError
from tfcseg.evaluation.evaluate import evaluate
from tfcseg.evaluation.predictions import Prediction, PredictionFolder, Predictions
from tfcseg.evaluation.result import RESULT_FILES, Evaluation, Speed, write_evaluation
from tfcseg.evaluation.scope import Scope
from tfcseg.evaluation.vspw import VspwVideo
from tfcseg.labels.label_sets import ADE31, VSPW, LabelSet, distinct_palette
from tfcseg.media.masks import read_mask
from tfcseg.media.writer import LOSSLESS_GRAY, VideoWriter
from tfcseg.metrics.scores import ConfusionMatrix, VideoConsistency, mean_iou, pixel_accuracy, weighted_iou

Labels = NDArray[np.uint8]
VIDEO = "0_hills"
SPEED = Speed(0, 0, None, None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_vspw(tmp_path / "VSPW_480p")


def worsen(target: Labels, video: str, number: int) -> Labels:
    """Sky becomes grass in some places, flickers in others, and a strip has no prediction."""
    prediction = np.where(target == VOID, SKY - 1, target).astype(np.uint8)
    prediction[:4, 20:30] = GRASS - 1
    prediction[4:8, 20:30] = TREE - 1 if number % 5 else SKY - 1
    prediction[-3:] = VOID
    return prediction


@pytest.fixture
def predictions(root: Path, tmp_path: Path) -> Path:
    return write_predictions(root, tmp_path / "predictions", worsen)


def from_images(predict_images):
    """Make a source of a function that yields one prediction per image path; it is not asked for missing images."""

    def predict(video: VspwVideo) -> Iterator[Prediction]:
        predictions = iter(predict_images([frame.image for frame in video.frames if frame.image is not None]))
        for frame in video.frames:
            if frame.image is None:
                yield DataError(f"{video.name}/{frame.stem}: the image is missing")
                continue
            prediction = next(predictions, None)
            if prediction is None:
                return
            yield prediction

    return predict


def score(root: Path, predictions: Path, **options: Any) -> Evaluation:
    names = [field.name for field in fields(Scope)]
    scope = Scope(**{name: options.pop(name) for name in names if name in options and name != "label_map"})
    facts = {name: options.pop(name) for name in ("mode", "model_s") if name in options}
    return evaluate(root, Predictions(PredictionFolder(predictions), **facts), scope, **options)


def kinds(evaluation: Evaluation) -> list[tuple[str, str, str | None]]:
    return [(skip.kind, skip.video, skip.frame) for skip in evaluation.skipped]


# -------------------------------------------------------------------------------------------------------------- scores


def test_ground_truth_scores_a_hundred(root, tmp_path):
    result = score(root, write_predictions(root, tmp_path / "perfect"))
    assert (result.miou, result.wiou, result.pixel_accuracy, result.vc8, result.vc16) == (100,) * 5
    assert result.classes_counted == 5
    assert (result.videos, result.frames) == (2, 38)
    assert not result.is_incomplete


@pytest.mark.parametrize("protocol", ["vspw", "strict"])
def test_scores_are_those_of_the_metrics(root, predictions, protocol):
    matrix = ConfusionMatrix(124)
    consistencies = []
    for video in ("0_hills", "1_road"):
        meter = VideoConsistency([8, 16], protocol)
        for number, target in targets(root, video).items():
            prediction = worsen(target, video, number)
            matrix.update(target, prediction)
            meter.update(target, prediction)
        consistencies.append(meter.result())
    result = score(root, predictions, protocol=protocol)
    assert result.miou == result.miou_all == 100 * mean_iou(matrix.counts)
    assert result.wiou == 100 * weighted_iou(matrix.counts)
    assert result.pixel_accuracy == 100 * pixel_accuracy(matrix.counts)
    for n, vc in ((8, result.vc8), (16, result.vc16)):
        parts = [part[n] for part in consistencies]
        assert vc == pytest.approx(100 * sum(part.vc.total for part in parts) / sum(part.vc.count for part in parts))
        assert result.windows[n].vc.count == sum(part.vc.count for part in parts)
        assert result.windows[n].dropped == sum(part.dropped for part in parts)
    assert 0 < result.vc16 < result.vc8 < 100
    assert 0 < result.miou < 100


def test_the_folder_of_a_run_scores_like_its_masks(root, predictions, tmp_path):
    for video in predictions.iterdir():
        shutil.copytree(video, tmp_path / "runs" / video.name / "masks")
    assert score(root, tmp_path / "runs").per_video == score(root, predictions).per_video


def test_a_video_of_labels_scores_like_its_pngs(root, predictions, tmp_path):
    maps = {}
    for video in (VIDEO, "1_road"):
        maps[video] = [read_mask(path) for path in sorted((predictions / video).iterdir())]
        (tmp_path / "videos" / video).mkdir(parents=True)
        write_label_video(tmp_path / "videos" / video / "labels.mkv", maps[video])
    assert score(root, tmp_path / "videos").per_video == score(root, predictions).per_video
    for count, words in ((21, "has more frames than 0_hills, 20"), (19, "ends before frame 00000185")):
        write_label_video(tmp_path / "videos" / VIDEO / "labels.mkv", (maps[VIDEO] * 2)[:count])
        with pytest.raises(DataError, match=words):
            score(root, tmp_path / "videos")
        left_out = score(root, tmp_path / "videos", skip_bad=True)
        assert [words in skip.reason for skip in left_out.skipped] == [True]
        assert left_out.videos == 2


def write_label_video(path, maps):
    with VideoWriter(path, LOSSLESS_GRAY, size=maps[0].shape, frame_rate=Fraction(15)) as encoder:
        for labels in maps:
            encoder.write(labels)


def test_protocols_use_different_windows(root, predictions):
    field, strict = (score(root, predictions, protocol=protocol) for protocol in ("vspw", "strict"))
    assert (field.windows[8].vc.count, field.windows[8].dropped) == (20 - 8 + 18 - 8, 2)
    assert (strict.windows[8].vc.count, strict.windows[8].dropped) == (20 - 7 + 18 - 7, 0)
    assert strict.vc8 < field.vc8  # the wrong strip is constant, and void is not a target


def test_limit_takes_the_first_videos_of_the_list(root, predictions):
    result = score(root, predictions, limit=1)
    assert [video.name for video in result.per_video] == [VIDEO]
    assert result.per_video == score(root, predictions).per_video[:1]


def test_options_are_checked(root, predictions):
    with pytest.raises(UsageError, match="no protocol 'loose'"):
        score(root, predictions, protocol="loose")
    with pytest.raises(UsageError, match="limit 0 is less than 1"):
        score(root, predictions, limit=0)


# ---------------------------------------------------------------------------------------------------------- label sets


def ade_predictions(video: VspwVideo) -> Iterator[Prediction]:
    """Predict with a model of label set ADE31 that is right, but for calling cars "other"."""
    to_ade = {SKY: "sky", GRASS: "grass", TREE: "tree", CAR: "other", fixture.PERSON: "person"}
    for frame in video.frames:
        assert frame.mask
        raw = read_mask(frame.mask)
        labels = np.full_like(raw, ADE31.index("road"))
        for value, name in to_ade.items():
            labels[raw == value] = ADE31.index(name)
        yield labels


def test_classes_a_model_cannot_predict_are_ignored_or_count_zero(root):
    label_map = {name: name for name in ("sky", "grass", "tree", "person")}
    result = evaluate(root, Predictions(ade_predictions, ADE31, label_map))
    assert result.unpredictable == ("car",)
    assert (result.miou, result.classes_counted) == (100, 4)
    assert (result.miou_all, result.classes_counted_all) == (100 * 4 / 5, 5)
    assert result.wiou == result.pixel_accuracy == 100
    assert result.wiou_all < 100
    assert result.pixel_accuracy_all < 100
    car = result.classes[VSPW.index("car")]
    assert (car.is_predictable, car.iou, car.iou_all) == (False, None, 0)
    assert car.target_pixels > 0
    # VC takes the target of all classes. Where the car is, the prediction is nothing: constant, but never right.
    assert result.vc8 == 100
    strict = evaluate(root, Predictions(ade_predictions, ADE31, label_map), Scope(protocol="strict"))
    assert strict.vc8 < 100


def test_the_built_in_map_is_used_unless_one_is_given(root):
    result = evaluate(root, Predictions(ade_predictions, ADE31))
    assert result.unpredictable == ()
    assert result.classes[VSPW.index("car")].iou == 0  # predictable, but called "other"
    assert result.miou == result.miou_all == 100 * 4 / 5


def test_several_model_classes_may_go_to_one(root):
    model = LabelSet("two skies", ("blue sky", "grey sky"), distinct_palette(2))

    def predict(video: VspwVideo) -> Iterator[Prediction]:
        for frame in video.frames:
            labels = np.zeros_like(read_mask(frame.mask or Path()))
            labels[:, ::2] = 1
            yield labels

    result = evaluate(root, Predictions(predict, model, {"blue sky": "sky", "grey sky": "sky"}))
    assert (result.miou, result.classes_counted, result.vc8) == (100, 1, 100)


def test_values_beyond_the_classes_are_refused_with_file_and_value(root, predictions):
    def predict(value: int) -> Callable[[VspwVideo], Iterable[Prediction]]:
        return lambda video: [np.full((36, 53), value, np.uint8)] * len(video.frames)

    with pytest.raises(DataError, match=r"0_hills/00000166.png has value 31; classes go from 0 to 30, 255 = none"):
        evaluate(root, Predictions(predict(31), LabelSet("30", ADE31.names[1:], ADE31.palette[1:]), {}))
    fixture.put_value(predictions / VIDEO / "00000170.png", 124)
    for skip_bad in (False, True):  # a mistake of the program that wrote it, not damage
        with pytest.raises(DataError, match=r"0_hills/00000170.png has value 124; classes go from 0 to 123"):
            score(root, predictions, skip_bad=skip_bad)


# ----------------------------------------------------------------------------------- missing things are counted, listed


def test_missing_frames_break_strict_windows_only(root, predictions):
    fixture.lose_frame(root, VIDEO, 176)  # leaves runs of 10 and 9 frames
    field, strict = (score(root, predictions, protocol=protocol) for protocol in ("vspw", "strict"))
    assert kinds(strict) == kinds(field) == [("missing frame", VIDEO, "00000177")]
    assert (strict.frames, strict.frames_missing) == (37, 1)
    assert strict.is_incomplete
    assert strict.per_video[0].windows[8].vc.count == (10 - 7) + (9 - 7)
    assert strict.per_video[0].windows[8].dropped_across_gap == 7
    assert field.per_video[0].windows[8].vc.count == 19 - 8


def test_missing_videos_are_listed(root, predictions):
    fixture.lose_video(root, VIDEO)
    result = score(root, predictions)
    assert kinds(result) == [("missing video", VIDEO, None)]
    assert (result.videos, result.frames) == (1, 18)
    assert result.is_incomplete


def test_videos_without_masks_are_listed_and_not_predicted(root, predictions):
    fixture.lose_masks(root, VIDEO)
    asked = []

    def predict(video: VspwVideo) -> Iterable[Prediction]:
        asked.append(video.name)
        return PredictionFolder(predictions)(video)

    assert kinds(evaluate(root, Predictions(predict))) == [("no masks", VIDEO, None)]
    assert asked == ["1_road"]


def test_a_split_without_masks_cannot_be_scored(root, predictions):
    for video in fixture.DEFAULT_VIDEOS:
        fixture.lose_masks(root, video)
    with pytest.raises(DataError, match=r"no frame of split 'val' can be scored, such as 0_hills: 20 frames without"):
        score(root, predictions)


def test_a_missing_mask_is_listed_and_breaks_strict_windows(root, predictions):
    mask_path(root, VIDEO, 176).unlink()
    result = score(root, predictions, protocol="strict")
    assert kinds(result) == [("missing mask", VIDEO, "00000176")]
    assert (result.frames, result.frames_missing) == (37, 1)
    assert result.per_video[0].windows[8].vc.count == (10 - 7) + (9 - 7)


def test_short_clips_are_listed(tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_short": 11, "1_long": 20})
    result = score(root, write_predictions(root, tmp_path / "predictions"))
    assert kinds(result) == [("too short", "0_short", None)]
    assert result.skipped[0].reason == "11 frames; VC16 needs 17 by protocol vspw"
    assert not result.is_incomplete
    assert result.windows[16].vc.count == 20 - 16
    assert result.windows[8].vc.count == 20 - 8 + 11 - 8


def test_a_clip_of_exactly_n_frames_has_a_strict_window_only(tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_sixteen": 16})
    predictions = write_predictions(root, tmp_path / "predictions")
    field, strict = (score(root, predictions, protocol=protocol) for protocol in ("vspw", "strict"))
    assert (field.vc16, strict.vc16) == (None, 100)
    assert kinds(field) == [("too short", "0_sixteen", None)]
    assert field.skipped[0].reason == "16 frames; VC16 needs 17 by protocol vspw"
    assert kinds(strict) == []


# ----------------------------------------------------------------------- damage stops, or is counted if that is allowed

DAMAGE = [fixture.empty_file, fixture.cut_file, fixture.make_colour, fixture.make_smaller, fixture.claim_size]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("where", ["mask", "prediction"])
def test_damaged_frames_stop_or_are_skipped(root, predictions, damage, where):
    damage(mask_path(root, VIDEO, 176) if where == "mask" else predictions / VIDEO / "00000176.png")
    with pytest.raises(DataError, match=r"00000176.png.*--skip-bad"):
        score(root, predictions)
    result = score(root, predictions, skip_bad=True, protocol="strict")
    assert kinds(result) == [("bad frame", VIDEO, "00000176")]
    assert result.frames == 37
    assert result.per_video[0].windows[8].vc.count == (10 - 7) + (9 - 7)
    assert result.is_incomplete


def test_a_missing_prediction_is_damage(root, predictions):
    (predictions / VIDEO / "00000176.png").unlink()
    with pytest.raises(DataError, match=r"00000176.png.*--skip-bad"):
        score(root, predictions)
    assert kinds(score(root, predictions, skip_bad=True)) == [("bad frame", VIDEO, "00000176")]


def test_stray_mask_values_stop_or_are_ignored_pixel_by_pixel(root, predictions):
    path = mask_path(root, VIDEO, 176)
    fixture.put_value(path, 252, slice(20, 22))
    with pytest.raises(DataError, match=r"00000176.png: value 252 is not a class \(6 pixels\).*--skip-bad"):
        score(root, predictions)
    result = score(root, predictions, skip_bad=True)
    assert kinds(result) == [("stray values", VIDEO, "00000176")]
    assert result.frames == 38
    fixture.put_value(path, VOID, slice(20, 22))
    as_void = score(root, predictions)
    assert (result.miou, result.vc8, result.classes) == (as_void.miou, as_void.vc8, as_void.classes)


def test_palette_predictions_are_read_by_index(root, predictions):
    expected = score(root, predictions)
    for path in predictions.glob("*/*.png"):
        fixture.make_palette(path)
    assert replace(score(root, predictions), speed=SPEED) == replace(expected, speed=SPEED)


def test_a_prediction_folder_has_to_exist(tmp_path):
    with pytest.raises(DataError, match="no such folder; predictions are read from"):
        PredictionFolder(tmp_path / "nowhere")


# -------------------------------------------------------------------------------------------------- sources from images


def from_mask_beside(images: Sequence[Path]) -> Iterator[Prediction]:
    """A "model" that is right, and cannot read empty images."""
    for image in images:
        if image.stat().st_size == 0:
            yield InputError(f"{image}: empty file")
            continue
        yield fixture.target_of(image.parents[1] / "mask" / f"{image.stem}.png")


def test_a_missing_image_is_a_missing_frame_and_an_empty_one_is_damage(root):
    image_path(root, VIDEO, 170).unlink()
    predict = from_images(from_mask_beside)
    result = evaluate(root, Predictions(predict))
    assert kinds(result) == [("missing image", VIDEO, "00000170")]
    assert (result.miou, result.frames, result.frames_missing) == (100, 37, 1)
    fixture.empty_file(image_path(root, VIDEO, 180))
    with pytest.raises(DataError, match=r"00000180.jpg: empty file; --skip-bad"):
        evaluate(root, Predictions(predict))
    assert kinds(evaluate(root, Predictions(predict), Scope(skip_bad=True))) == [
        ("missing image", VIDEO, "00000170"),
        ("bad frame", VIDEO, "00000180"),
    ]


def test_images_are_not_needed_to_score_predictions(root, predictions):
    expected = score(root, predictions)
    for path in root.glob("data/*/origin/*"):
        path.unlink()
    assert replace(score(root, predictions), speed=SPEED) == replace(expected, speed=SPEED)


def test_sources_have_to_yield_one_prediction_per_frame(root):
    for count in (1, 19, 21):
        with pytest.raises(ValueError, match="zip"):
            evaluate(root, Predictions(lambda video, count=count: [np.zeros((36, 53), np.uint8)] * count))


def test_frames_are_asked_for_one_at_a_time(root, monkeypatch):
    pending: list[Path] = []

    def predict(images: Sequence[Path]) -> Iterator[Prediction]:
        for image, prediction in zip(images, from_mask_beside(images), strict=True):
            pending.append(image)
            assert len(pending) == 1
            yield prediction

    monkeypatch.setattr(ConfusionMatrix, "update", lambda *frame: pending.clear())
    evaluate(root, Predictions(from_images(predict)))


def test_saved_predictions_score_the_same(root, tmp_path):
    seen: list[tuple[int, int]] = []
    label_map = {name: name for name in ("sky", "grass", "tree", "person")}
    predictions = Predictions(ade_predictions, ADE31, label_map)
    first = evaluate(root, predictions, save_masks=tmp_path / "saved", on_done=lambda *done: seen.append(done))
    assert seen == [(done, len(first.per_video)) for done in range(len(first.per_video) + 1)]
    second = score(root, tmp_path / "saved")
    assert (second.miou_all, second.vc8, second.windows) == (first.miou_all, first.vc8, first.windows)


def test_predictions_that_cannot_be_saved_are_an_output_error(root, tmp_path):
    (tmp_path / "saved").write_text("a file")
    with pytest.raises(OutputError, match="saved"):
        evaluate(root, Predictions(ade_predictions, ADE31), save_masks=tmp_path / "saved")


# ----------------------------------------------------------------------------------------------------------- stability


def test_tc_is_measured_on_request_and_names_its_flow(root, predictions, tmp_path):
    assert (score(root, predictions).flow_consistency, score(root, predictions).optical_flow) == (None, None)
    worse = score(root, predictions, measure_flow_consistency=True)
    still = score(
        root,
        write_predictions(root, tmp_path / "still", lambda t, v, n: np.zeros_like(t)),
        measure_flow_consistency=True,
    )
    assert worse.optical_flow == still.optical_flow
    assert "dis" in str(worse.optical_flow)
    assert (still.flow_consistency, still.label_change) == (100, 0)
    assert worse.flow_consistency is not None
    assert worse.label_change is not None
    assert 50 < worse.flow_consistency < 100
    assert 0 < worse.label_change < 50


def test_tc_does_not_bridge_gaps(root, predictions):
    assert score(root, predictions, measure_flow_consistency=True).per_video[0].label_change.count == 19
    fixture.lose_frame(root, VIDEO, 176)
    image_path(root, VIDEO, 180).unlink()
    # The lost frame and the lost image each take two pairs with them.
    assert score(root, predictions, measure_flow_consistency=True).per_video[0].label_change.count == 15


@pytest.mark.parametrize("damage", [fixture.empty_file, fixture.cut_file, fixture.make_smaller])
def test_tc_needs_readable_images_of_the_right_size(root, predictions, damage):
    path = image_path(root, VIDEO, 176)
    damage(path)
    with pytest.raises(DataError, match=r"00000176.jpg.*--skip-bad"):
        score(root, predictions, measure_flow_consistency=True)
    result = score(root, predictions, measure_flow_consistency=True, skip_bad=True)
    assert kinds(result) == [("bad frame", VIDEO, "00000176")]
    assert result.frames == 38


# --------------------------------------------------------------------------------------------------------------- files


def test_writes_the_keys_and_tables_that_are_promised(root, predictions, tmp_path):
    fixture.lose_frame(root, VIDEO, 176)
    result = score(root, predictions, mode="tfc", model_s=iter([1.0, 2.0, 5.0, 6.0]).__next__)
    paths = write_evaluation(tmp_path / "out", result)
    assert [path.name for path in paths] == list(RESULT_FILES)
    content = json.loads(paths[0].read_text())
    promised = (
        "miou miou_all wiou pixel_accuracy vc8 vc16 flow_consistency classes_counted windows videos frames skipped "
        "per_class "
        "protocol mode speed"
    )
    assert set(promised.split()) <= set(content)
    assert content["windows"] == {"8": {"counted": 21, "dropped": 2}, "16": {"counted": 5, "dropped": 2}}
    assert content["windows_dropped"]["8"] == {"last": 2, "across_gap": 0, "without_target": 0}
    assert content["skipped"] == [
        {"kind": "missing frame", "video": VIDEO, "frame": "00000177", "reason": "1 missing before this one"}
    ]
    assert set(content["per_class"]) == {"sky", "grass", "tree", "car", "person"}
    assert sum(content["per_class"].values()) / content["classes_counted"] == pytest.approx(content["miou"])
    assert (content["protocol"], content["mode"], content["split"]) == ("vspw", "tfc", "val")
    assert content["speed"]["model_s"] == 2
    assert content["speed"]["model_fps"] == 37 / 2

    with paths[1].open() as file:
        classes = list(csv.DictReader(file))
    assert [row["name"] for row in classes] == list(VSPW)
    assert float(classes[SKY - 1]["iou"]) == pytest.approx(content["per_class"]["sky"], abs=1e-4)
    assert classes[VSPW.index("gun")]["iou"] == ""
    with paths[2].open() as file:
        videos = list(csv.DictReader(file))
    assert [row["video"] for row in videos] == ["0_hills", "1_road"]
    assert videos[0]["frames_missing"] == "1"
    assert videos[0]["vc8_counted"] == "11"
    assert videos[0]["skipped"] == "00000177: 1 missing before this one"
    assert float(videos[1]["vc8"]) == pytest.approx(100 * result.per_video[1].windows[8].vc.value, abs=1e-4)


def test_results_that_cannot_be_written_are_an_output_error(root, predictions, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot write to folder"):
        write_evaluation(tmp_path / "out", score(root, predictions))


# --------------------------------------------------------------------------------------------------------------- speed


def test_scoring_takes_less_time_than_reading_the_pngs_twice(tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_large": 60}, size=(480, 853))
    for path in root.glob("data/*/mask/*.png"):  # edges as ragged as those of real masks
        raw = read_mask(path)
        shift = np.random.default_rng(int(path.stem)).integers(0, 3, raw.shape[0])
        cv2.imwrite(str(path), np.stack([np.roll(row, step) for row, step in zip(raw, shift, strict=True)]))
    predictions = write_predictions(root, tmp_path / "predictions")
    paths = [*root.glob("data/*/mask/*.png"), *predictions.glob("*/*.png")]

    def read() -> None:
        for path in paths:
            read_mask(path)

    # Processor time, not the clock: other programs may be running. The best of three is the least disturbed.
    assert _best_s(lambda: score(root, predictions)) < 2 * _best_s(read)


def _best_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)
