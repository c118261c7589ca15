"""What -v and --log-file tell: decisions where they are taken, each warning once, and no chatter of other libraries."""

import json
import logging
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from tests.helpers.command_line import call
from tests.helpers.media import folder_of_images, numbered_images, run_ffmpeg, write_clip
from tests.helpers.tiny_model import write_tiny_model
from tests.helpers.vspw_fixture import make_vspw, write_predictions
from tfcseg.cli import app
from tfcseg.errors import OutputError, UsageError
from tfcseg.log import JsonLines, json_record, listen

SOUND = ("sine=duration=0.4", ("-c:a", "aac", "-shortest"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    """A clip with sound, turned on its side as phones do it."""
    folder = tmp_path_factory.mktemp("phone")
    flat = write_clip(folder / "flat.mp4", 6, size=(48, 80), rate="15", audio=SOUND)
    run_ffmpeg("-display_rotation", "90", "-i", flat, "-c", "copy", folder / "phone.mp4")
    return folder / "phone.mp4"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["run", "eval", "compare", "train", "bench", "doctor"])
def test_every_command_that_runs_a_network_can_tell(name):
    names = {option for parameter in get_command(app).commands[name].params for option in parameter.opts}
    assert {"-v", "--verbose", "--log-file"} <= names


def test_decisions_are_told_on_stderr_and_in_the_log(phone, weights, tmp_path):
    log = tmp_path / "log.jsonl"
    done = call("run", phone, "-o", tmp_path / "out", "-m", weights, "-v", "-q", "--log-file", log)
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert f"{phone}: read at a constant 15 frames per second, 48×80, turned by 90 degrees; sound: aac" in told
    assert any(re.fullmatch(r"model tiny \(.*\) on cpu in (float32|bfloat16)", line) for line in told)
    assert "mode tfc: keyframe interval 4, threshold 0.8, paper correlation" in told
    assert "network input 64×96 for frames of 48×80" in told
    assert len(set(told)) == len(told)
    records = lines(log)
    assert all(record.keys() >= {"time", "level", "logger", "message", "fields"} for record in records)
    assert records[0]["message"] == "tfcseg run begins"
    assert records[0]["fields"]["arguments"][:2] == ["run", str(phone)]
    assert records[0]["fields"]["versions"]["numpy"] == np.__version__
    assert [record["message"] for record in records if record["level"] == "info"][1:] == told
    opened = next(record["fields"] for record in records if record["logger"] == "tfcseg.media.frames")
    assert opened == {"frame_rate": 15, "rotation": 90, "size": [80, 48], "frames_declared": 6, "audio": "aac"}


def test_nothing_is_told_unasked(phone, weights, tmp_path):
    done = call("run", phone, "-o", tmp_path / "out", "-m", weights, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_label_maps_and_predictions_are_told(tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_hills": 3})
    masks = write_predictions(root, tmp_path / "masks")
    done = call("eval", root, "--predictions", masks, "-v", "--json")
    assert "1 of the 1 videos of split val, VC by protocol vspw" in done.stderr
    assert json.loads(done.stdout)["videos"] == 1


def test_logs_are_appended_and_end_with_the_error(tmp_path):
    log = tmp_path / "log.jsonl"
    for attempt in (1, 2):
        done = call("run", tmp_path / "missing.mp4", "-o", tmp_path / "out", "--log-file", log)
        assert done.returncode == 1
        records = lines(log)
        assert [record["level"] for record in records].count("error") == attempt
        assert (records[-1]["level"], records[-1]["message"]) == ("error", done.error)


def test_usage_errors_are_logged_too(tmp_path):
    done = call("run", "x.mp4", "--mode", "tcf", "--log-file", tmp_path / "log.jsonl")
    assert done.returncode == 2
    assert lines(tmp_path / "log.jsonl")[-1]["message"] == done.error


# ------------------------------------------------------------------------------------------------------------ warnings


def test_each_warning_is_said_once_and_again_in_the_report(weights, tmp_path):
    folder = folder_of_images(tmp_path / "frames", numbered_images(5), [f"{n}.png" for n in range(5)])
    (folder / "3.png").write_bytes(b"damaged")
    (folder / "notes.txt").write_text("no image")
    log = tmp_path / "log.jsonl"
    done = call("run", folder, "-o", tmp_path / "out", "-m", weights, "-v", "--log-file", log)
    assert done.returncode == 0
    reported = json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]
    assert len(reported) == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert said == [f"warning: {warning}" for warning in reported]
    assert [record["message"] for record in lines(log) if record["level"] == "warning"] == reported


def test_warnings_of_other_libraries_go_to_the_log_alone(tmp_path):
    code = (
        "import sys, warnings, tfcseg.weights.registry as registry\n"
        "listed = registry.list_models\n"
        "def list_models(*arguments):\n"
        "    warnings.warn('from a library\\nin two lines')\n"
        "    return listed(*arguments)\n"
        "registry.list_models = list_models\n"
        "from tfcseg.cli import main; main()"
    )
    log = tmp_path / "log.jsonl"
    arguments = ["run", "x.mp4", "-m", "no-such-model", "--log-file", str(log)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert len(done.stderr.splitlines()) == 1, done.stderr
    found = [record for record in lines(log) if record["logger"] == "py.warnings"]
    assert ["from a library\nin two lines" in record["message"] for record in found] == [True]


# ------------------------------------------------------------------------------------------------------- where it goes


def test_other_files_are_not_appended_to(phone, weights, tmp_path):
    before = phone.read_bytes()
    done = call("run", phone, "-o", tmp_path / "out", "-m", weights, "--log-file", phone)
    assert done.returncode == 2
    assert "is not a log of JSON lines; choose another --log-file" in done.error
    assert phone.read_bytes() == before


@pytest.mark.parametrize("place", [".", "missing/log.jsonl"])
def test_a_log_that_cannot_be_written_is_an_error_before_any_work(phone, weights, tmp_path, place):
    done = call("run", phone, "-o", tmp_path / "out", "-m", weights, "--log-file", tmp_path / place)
    assert done.returncode == 1
    assert "cannot write the log" in done.error
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_ends_the_log_and_not_the_run(phone, weights, tmp_path):
    done = call("run", phone, "-o", tmp_path / "out", "-m", weights, "-q", "--log-file", "/dev/full")
    assert done.returncode == 0
    assert done.stderr == "warning: the log '/dev/full' ends here: No space left on device\n"
    assert (tmp_path / "out" / "report.json").exists()


def test_records_hold_what_json_can(tmp_path):
    log = logging.getLogger("tfcseg.test")
    handler = JsonLines(tmp_path / "log.jsonl", pytest.fail)
    stop = listen(handler)
    values = {
        "path": tmp_path,
        "rate": Fraction(30000, 1001),
        "nan": float("nan"),
        "n": np.int64(3),
        "sizes": (1, 2),
    }
    log.info("a %s\nand \udcff", "line", extra={"values": values})
    log.debug("unheard")
    stop()
    log.info("unheard")
    (record,) = lines(tmp_path / "log.jsonl")
    assert record["message"] == "a line\nand \udcff"
    assert record["fields"]["values"] == {
        "path": str(tmp_path),
        "rate": pytest.approx(29.97, abs=0.001),
        "nan": None,
        "n": 3,
        "sizes": [1, 2],
    }


def test_a_traceback_is_kept_in_its_record():
    try:
        {}["x"]
    except KeyError:
        record = logging.LogRecord("tfcseg", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    assert json_record(record)["traceback"].splitlines()[-1] == "KeyError: 'x'"


def test_a_library_is_silent_unless_somebody_listens():
    code = "import tfcseg, logging; logging.getLogger('tfcseg.media.frames').error('unheard')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert (done.stdout, done.stderr) == ("", "")


def test_errors_of_opening_have_the_right_kind(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "report.json").write_text('{\n  "schema": 1\n}')
    for name in ("notes.txt", "report.json"):
        with pytest.raises(UsageError):
            JsonLines(tmp_path / name, pytest.fail)
    with pytest.raises(OutputError):
        JsonLines(tmp_path / "no" / "log", pytest.fail)
    assert (tmp_path / "notes.txt").read_text() == "mine"
