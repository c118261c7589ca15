"""report.json and frames.csv."""

import csv
import dataclasses
import json
import os
from contextlib import closing
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tfcseg.errors import OutputError
from tfcseg.files import to_json, write_json
from tfcseg.report.schema import (
    ClassFacts,
    ConfidenceFacts,
    FrameRow,
    FrameTable,
    InputFacts,
    ModelFacts,
    OptionFacts,
    Report,
    SpeedFacts,
    StabilityFacts,
)

KEYS = {
    "schema": None,
    "tfcseg": None,
    "input": "path frames_decoded frames_declared width height frame_rate duration_s rotation audio start_s end_s "
    "pixel_aspect frames_repeated frames_dropped",
    "model": "name backbone sha256 classes parameters description trained_on licence",
    "options": " ".join(field.name for field in fields(OptionFacts)),
    "speed": "wall_s fps model_fps keyframe_ms non_keyframe_ms resumes",
    "stability": "label_change flow_consistency optical_flow similarity updated_fraction keyframes pulse cuts",
    "confidence": "mean unsure unsure_below temperature calibration_error",
    "classes": None,
    "outputs": None,
    "warnings": None,
    "steady": None,
    "run": None,
}


def report(path="clip.mp4", **changes) -> Report:
    facts = Report(
        tfcseg="0.1.0",
        input=InputFacts(path, 250, None, 1280, 720, Fraction(30000, 1001), 8.341667, 90, "aac"),
        model=ModelFacts("small", "mit_b0", "ab" * 32, 32, 3_752_694),
        options=OptionFacts("tfc", 4, 0.8, None, "paper", "first", 0.0, device="cpu", precision="float32"),
        speed=SpeedFacts(12.3456789, 20.2500001, None, 61.23456, 22.0),
        stability=StabilityFacts(1 / 3, 0.97, "opencv-dis-medium-240", 0.9, 0.05, 63),
        confidence=ConfidenceFacts(0.8, 0.1, 0.5, 1.5, 0.04),
        classes=(ClassFacts(3, "sky", 0.5), ClassFacts(13, "person", 0.25)),
        outputs={"overlay": "overlay.mp4", "masks": "masks"},
        warnings=("decoded 250 of about 260 frames",),
    )
    return dataclasses.replace(facts, **changes)


def written(tmp_path, facts: Report):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    write_json(tmp_path / "report.json", facts)
    return json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_keys_of_the_file(tmp_path):
    content = written(tmp_path, report())
    assert list(content) == list(KEYS)
    for section, names in KEYS.items():
        if names is not None:
            assert list(content[section]) == names.split()
    assert [list(item) for item in content["classes"]] == [["index", "name", "share"]] * 2


def test_values_of_the_file(tmp_path):
    content = written(tmp_path, report())
    assert content["schema"] == 1
    assert content["input"]["frame_rate"] == 29.97003
    assert content["input"]["frames_declared"] is None
    assert content["speed"] == {
        "wall_s": 12.345679,
        "fps": 20.25,
        "model_fps": None,
        "keyframe_ms": 61.235,
        "non_keyframe_ms": 22.0,
        "resumes": 0,
    }
    assert content["stability"]["label_change"] == 0.333333
    assert content["outputs"] == {"overlay": "overlay.mp4", "masks": "masks"}
    assert content["warnings"] == ["decoded 250 of about 260 frames"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_numbers_that_json_lacks_become_null(tmp_path, value):
    content = written(tmp_path, report(speed=SpeedFacts(1.0, value, value, value, value)))
    assert content["speed"]["fps"] is None
    assert content["speed"]["keyframe_ms"] is None


def test_numpy_numbers_are_numbers(tmp_path):
    facts = ClassFacts(np.int64(3), "sky", np.float32(0.25))
    assert written(tmp_path, report(classes=(facts,)))["classes"] == [{"index": 3, "name": "sky", "share": 0.25}]


@pytest.mark.parametrize(
    "path",
    ["Straße/映像 🎬.mp4", 'a"b\\c\n</script><script>alert(1)</script>', os.fsdecode(b"not-utf8-\xff.mp4"), "\u2028"],
)
def test_names_of_any_kind_survive(tmp_path, path):
    assert written(tmp_path, report(path))["input"]["path"] == path


def test_text_is_readable_utf_8(tmp_path):
    write_json(tmp_path / "report.json", report("映像.mp4"))
    assert "映像.mp4" in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    write_json(tmp_path / "report.json", report())
    before = (tmp_path / "report.json").read_bytes()
    with pytest.raises(TypeError):
        write_json(tmp_path / "report.json", report(outputs={"overlay": object()}))
    assert (tmp_path / "report.json").read_bytes() == before
    with pytest.raises(OutputError, match=r"report\.json"):
        write_json(tmp_path / "none" / "report.json", report())
    assert list(tmp_path.iterdir()) == [tmp_path / "report.json"]


def test_reports_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        report().input.width = 1


def test_what_is_no_fact_is_refused():
    with pytest.raises(TypeError, match="ndarray"):
        to_json({"similarity": np.zeros(3)})


def rows():
    yield FrameRow(0, 0.0, True, None, None, None, None, 61.23456)
    yield FrameRow(1, 1001 / 30000, False, 0.91, 0.0478, 0.0123456789, 0.9912, 22.0)
    yield FrameRow(np.int64(2), 0.0667, np.bool_(False), np.float32(0.5), float("nan"), 0.0, float("inf"), None, True)


def test_frame_table(tmp_path):
    with closing(FrameTable(tmp_path / "frames.csv")) as table:
        for row in rows():
            table.write(row)
    assert (tmp_path / "frames.csv").read_bytes().decode() == (
        "frame,time_s,is_keyframe,similarity,updated_fraction,label_change,flow_consistency,model_ms,is_held,confidence,unsure\n"
        "0,0.000000,1,,,,,61.235,0,,\n"
        "1,0.033367,0,0.910000,0.047800,0.012346,0.991200,22.000,0,,\n"
        "2,0.066700,0,0.500000,,0.000000,,,1,,\n"
    )


def test_each_row_is_on_disk_at_once(tmp_path):
    table = FrameTable(tmp_path / "frames.csv")
    for count, row in enumerate(rows(), start=1):
        table.write(row)
        with (tmp_path / "frames.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == count
    table.close()
    table.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_clear_line():
    with pytest.raises(OutputError, match=r"cannot write '/dev/full': No space left on device"):
        FrameTable(Path("/dev/full"))


def test_a_table_that_cannot_be_made(tmp_path):
    with pytest.raises(OutputError, match=r"frames\.csv"):
        FrameTable(tmp_path / "none" / "frames.csv")
