"""A run that is killed again and again ends in the same results as one that was left alone."""

import contextlib
import csv
import json
import os
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.media import write_video
from tests.helpers.run_server import PART_FRAMES, RunServer
from tests.helpers.tiny_model import moving_images, write_tiny_model
from tfcseg.media.reader import read_frames
from tfcseg.runs.state import STATE_FOLDER

FRAMES = 6 * PART_FRAMES + 7
KILLS = 20
RESULTS = {"side_by_side": True}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    sound = ("sine=frequency=440:duration=5", ("-c:a", "aac"))
    return write_video(tmp_path_factory.mktemp("media") / "clip.mp4", moving_images(FRAMES, (64, 64)), audio=sound)


@pytest.fixture(scope="module")
def server():
    running = RunServer()
    yield running
    running.close()


def rows_written(out):
    with contextlib.suppress(FileNotFoundError):
        return (out / "frames.csv").read_bytes().count(b"\n") - 1
    return 0


def wait_for(condition, child, timeout_s=60):
    """Look often, so that the moment is met; the child may have ended before."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
                return
        time.sleep(0.003)


def page_data(out):
    """The numbers that report.html draws."""
    text = (out / "report.html").read_text(encoding="utf-8")
    return re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, flags=re.DOTALL)[1]


def rows_without_times(out):
    with (out / "frames.csv").open(newline="") as file:
        return [{**row, "model_ms": ""} for row in csv.DictReader(file)]


def assert_same_results(out, wanted):
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in wanted.iterdir())
    names = sorted(path.name for path in (wanted / "masks").iterdir())
    assert sorted(path.name for path in (out / "masks").iterdir()) == names
    for name in names:
        assert (out / "masks" / name).read_bytes() == (wanted / "masks" / name).read_bytes()
    assert rows_without_times(out) == rows_without_times(wanted)
    for name in ("overlay.mp4", "side_by_side.mp4"):
        if (wanted / name).exists():
            for frame, other in zip(read_frames(out / name), read_frames(wanted / name), strict=True):
                assert np.array_equal(frame.image, other.image)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (out, wanted)]
    assert reports[0] | {"speed": None} == reports[1] | {"speed": None}
    if (wanted / "report.html").exists():
        assert page_data(out) == page_data(wanted)


def test_20_kills_leave_no_trace(clip, server, tmp_path):
    wanted, out = tmp_path / "wanted", tmp_path / "out"
    server.start(clip, wanted, RESULTS, resume=False)
    assert server.wait() == 0
    rng = random.Random(20)
    # Rows at which to kill, and the last ones while the videos are joined; then some time more, in ms.
    moments = [*sorted(rng.randrange(FRAMES + 1) for _ in range(KILLS - 2)), FRAMES, FRAMES]
    killed = 0
    for attempt, rows in enumerate(moments):
        child = server.start(clip, out, RESULTS, resume=attempt > 0)
        wait_for(lambda: rows_written(out) >= rows, child)  # noqa: B023  # called at once
        time.sleep(rng.uniform(0, 0.03))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = server.wait()
        if status == 0:  # it was faster: only possible at the very end
            break
        assert status == signal.SIGKILL
        killed += 1
    else:
        server.start(clip, out, RESULTS, resume=True)
        assert server.wait() == 0
    assert killed >= KILLS - 4
    assert_same_results(out, wanted)
    speed = json.loads((out / "report.json").read_text())["speed"]
    assert speed["resumes"] > 3


def encoders(folder):
    """Command lines of ffmpeg that name a file in ``folder``."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().decode(errors="replace"))
    return [line for line in lines if "ffmpeg" in line and str(folder) in line]


def test_signals_at_any_time_end_in_one_line_and_exit_code_130(clip, server, tmp_path):
    weights = write_tiny_model(tmp_path / "tiny.safetensors")
    rng = random.Random(1)
    for attempt, rows in enumerate([0, 0, 0, 5, 20, FRAMES // 2, FRAMES]):
        out = tmp_path / str(attempt)
        child = server.call("run", clip, "-o", out, "-m", weights, "-q", stderr=tmp_path / "stderr")
        wait_for((tmp_path / "stderr").exists, child)
        wait_for(lambda: rows_written(out) >= rows, child)  # noqa: B023  # called at once
        time.sleep(rng.uniform(0.05, 0.3) if rows < FRAMES // 2 else 0)
        os.kill(child, rng.choice([signal.SIGINT, signal.SIGTERM]))
        status = os.waitstatus_to_exitcode(server.wait())
        message = (tmp_path / "stderr").read_text()
        (tmp_path / "stderr").unlink()
        assert status == 130, message
        assert re.fullmatch(r"error: interrupted.*\n", message)
        assert not out.exists() or {path.name for path in out.iterdir()} <= {
            STATE_FOLDER,
            "classes.json",
            "frames.csv",
            "masks",
        }
        assert encoders(out) == []
