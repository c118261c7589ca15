"""What a frame says and shows in Python."""

import dataclasses
import re

import cv2
import numpy as np
import pytest

import tfcseg
from tests.helpers.tiny_model import build_tiny_model, moving_images
from tfcseg.drawing.render import overlay
from tfcseg.errors import TfcsegError, UsageError
from tfcseg.labels.label_sets import NO_CLASS, LabelSet

LABELS = LabelSet("street", ("sky", "road", "person"), ((0, 0, 255), (90, 90, 90), (255, 0, 0)))


def frame(size=(4, 5)):
    """Sky above road, with one person of 1×2 pixels and one pixel without a class."""
    labels = np.zeros(size, np.uint8)
    labels[2:] = 1
    labels[1:3, 3] = 2
    labels[3, 4] = NO_CLASS
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return tfcseg.SegmentedFrame(7, 0.28, image, labels, True, None, None, 1.0, False, LABELS)


def test_classes_are_those_in_the_frame_with_their_shares():
    assert list(frame().classes.items()) == [("sky", 9 / 20), ("road", 8 / 20), ("person", 2 / 20)]
    assert "7 at 0.28 s, 5×4: sky 45%, road 40%, person 10%" in repr(frame())


def test_masks_are_named_by_class():
    one = frame()
    assert np.argwhere(one.mask("Person")).tolist() == [[1, 3], [2, 3]]
    assert (one.mask("sky", "road") == ((one.labels == 0) | (one.labels == 1))).all()
    assert (one.mask("sky, road") == one.mask("sky", "road")).all()
    assert not one.mask("sky", "road", "person")[3, 4]
    with pytest.raises(UsageError, match=r"no class 'persn'.*did you mean person"):
        one.mask("persn")
    with pytest.raises(UsageError, match="needs the name of a class"):
        one.mask()
    for given in (["sky", "road"], 2, None):
        with pytest.raises(UsageError, match=f"{re.escape(repr(given))} is no name of a class"):
            one.mask(given)
    for classes in (2, ["sky", 2]):
        with pytest.raises(UsageError, match="2 is no name of a class"):
            one.overlay(classes=classes)


def test_overlay_is_that_of_a_run():
    one = frame()
    palette = LABELS.palette_array()
    assert (one.overlay() == overlay(one.image, one.labels, palette)).all()
    visible = np.array([False, False, True])
    only = one.overlay(classes=["person"], alpha=0.3)
    assert (only == overlay(one.image, one.labels, palette, alpha=0.3, visible=visible)).all()
    with pytest.raises(UsageError, match="opacity is 2"):
        one.overlay(alpha=2)


def test_notebooks_get_a_picture_with_a_legend():
    one = frame((400, 1200))
    picture = cv2.imdecode(np.frombuffer(one._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (320, 960, 3)
    assert (one.overlay(legend=True) != one.overlay()).any()


def test_supervision_gets_one_detection_per_class():
    sv = pytest.importorskip("supervision")
    one = frame()
    found = one.to_supervision()
    assert isinstance(found, sv.Detections)
    assert found.class_id.tolist() == [0, 1, 2]
    assert found.data["class_name"].tolist() == ["sky", "road", "person"]
    assert found.xyxy.tolist() == [[0, 0, 5, 2], [0, 2, 5, 4], [3, 1, 4, 3]]
    for mask, name in zip(found.mask, LABELS.names, strict=True):
        assert (mask == one.mask(name)).all()
    assert found.confidence is None
    half = dataclasses.replace(one, confidence_grid=np.full((2, 2), 128, np.uint8))
    assert half.to_supervision().confidence == pytest.approx([128 / 255] * 3)
    drawn = sv.MaskAnnotator().annotate(one.image.copy(), found)
    assert (drawn != one.image).any()


def test_without_supervision_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TfcsegError, match="pip install supervision"):
        frame().to_supervision()


def test_frames_of_segment_know_their_classes():
    model = build_tiny_model()
    for mode in ("tfc", "image"):
        for one in tfcseg.segment(moving_images(3, (32, 48)), model, mode=mode):
            assert one.label_set is model.labels
            assert sum(one.classes.values()) == pytest.approx(1)


def test_what_a_prompt_shows_fits_on_a_line():
    model = build_tiny_model()
    for thing in (model, model.labels, tfcseg.load_model("default")):
        assert len(repr(thing)) < 150
        assert "\n" not in repr(thing)
    assert "tiny" in repr(model)
    assert "5 classes" in repr(model)


def test_the_package_says_its_version_and_its_names():
    from importlib.metadata import version

    assert tfcseg.__version__ == version("tfcseg")
    assert set(tfcseg.__all__) <= set(dir(tfcseg))
    for name in ("UsageError", "InputError", "OutputError", "WeightsError", "DataError", "ResultOptions"):
        assert getattr(tfcseg, name).__module__.startswith("tfcseg.")
