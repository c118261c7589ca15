"""What a run says about how sure its labels are."""

import csv
import json

import numpy as np
import PIL.Image
import pytest

import tfcseg
from tests.helpers.media import write_video
from tests.helpers.tiny_model import build_tiny_model, moving_images
from tfcseg.errors import UsageError
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.media.masks import read_mask
from tfcseg.runs.options import ResultOptions

FRAMES, SIZE = 9, (44, 70)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mkv", moving_images(FRAMES, SIZE), rate="5")


def run(clip, out, **options):
    """Report, rows and the masks of a run."""
    results = ResultOptions(overlay=False, flow_consistency=False, **options)
    tfcseg.run(clip, out, build_tiny_model(), results=results)
    with (out / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    masks = [read_mask(out / "masks" / f"{index:08d}.png") for index in range(FRAMES)]
    return json.loads((out / "report.json").read_text()), rows, np.stack(masks)


def confidence(out):
    """(T, H, W) of the PNG files."""
    files = sorted((out / "confidence").iterdir())
    assert [path.name for path in files] == [f"{index:08d}.png" for index in range(FRAMES)]
    pictures = [PIL.Image.open(path) for path in files]
    assert {picture.mode for picture in pictures} == {"L"}
    return np.stack([np.array(picture) for picture in pictures])


def test_pictures_rows_and_report_tell_the_same(clip, tmp_path):
    report, rows, masks = run(clip, tmp_path / "out", confidence=True)
    sure = confidence(tmp_path / "out")
    assert sure.shape == masks.shape
    assert report["outputs"]["confidence"] == "confidence"
    for row, each in zip(rows, sure, strict=True):
        assert float(row["confidence"]) == pytest.approx(each.mean() / 255, abs=0.03)  # the grid's against the pixels'
        assert float(row["unsure"]) == pytest.approx((each < 127.5).mean(), abs=0.1)
    found = report["confidence"]
    assert found["mean"] == pytest.approx(np.mean([float(row["confidence"]) for row in rows]), abs=1e-4)
    assert found["unsure"] == pytest.approx(np.mean([float(row["unsure"]) for row in rows]), abs=1e-4)
    assert (found["unsure_below"], found["temperature"], found["calibration_error"]) == (0.5, 1, None)


def test_unsure_labels_become_none(clip, tmp_path):
    _, _, plain = run(clip, tmp_path / "plain")
    below = 0.3
    report, _, masks = run(clip, tmp_path / "out", confidence=True, unsure=below)
    is_unsure = confidence(tmp_path / "out") < 255 * below
    assert 0 < is_unsure.mean() < 1
    assert (masks[is_unsure] == NO_CLASS).all()
    assert np.array_equal(masks[~is_unsure], plain[~is_unsure])
    assert report["confidence"]["unsure_below"] == below


def test_frames_in_python_know_how_sure_they_are():
    (frame,) = tfcseg.segment(moving_images(1, SIZE), build_tiny_model())
    assert frame.confidence.shape == frame.labels.shape
    assert frame.without_unsure(0).labels is frame.labels
    assert (frame.without_unsure(1.0).labels == NO_CLASS).mean() > 0.9


def test_a_share_is_needed(clip, tmp_path):
    with pytest.raises(UsageError, match=r"unsure 1\.2 is not between 0 and 1"):
        run(clip, tmp_path / "out", unsure=1.2)
