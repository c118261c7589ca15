"""Long videos and large frames take no more memory than short and small ones. Minutes long: ``pytest -m slow``."""

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.media import run_ffmpeg, write_clip
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.media.masks import read_mask
from tfcseg.media.reader import read_frames

pytestmark = pytest.mark.slow

SLACK_MIB = 8
"""What counts frames, names and rows may add, and what allocators keep by chance."""


class Peak(NamedTuple):
    own_mib: float
    ffmpeg_mib: float
    """Of the largest process."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def measure(source, out, weights, *options):
    """Peak memory of ``tfcseg run`` in a process of its own."""
    arguments = ("run", source, "-o", out, "-m", weights, "--no-flow-consistency", "-q", *options)
    own_mib, ffmpeg_mib = 0.0, 0.0
    with subprocess.Popen([sys.executable, "-m", "tfcseg", *map(str, arguments)], stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            own_mib = max(own_mib, peak_mib(process.pid, "python"))
            ffmpeg_mib = max([ffmpeg_mib, *(peak_mib(child, "ffmpeg") for child in children_of(process.pid))])
            time.sleep(0.02)
        words = process.stderr.read().decode()
    assert (process.returncode, words) == (0, "")
    print(f"{source.name}: {own_mib:.0f} MiB, ffmpeg {ffmpeg_mib:.0f} MiB")
    return Peak(own_mib, ffmpeg_mib)


def children_of(process):
    lists = Path(f"/proc/{process}/task").glob("*/children")
    found = []
    for children in lists:
        with suppress(OSError):  # the thread has just ended
            found += [int(child) for child in children.read_text().split()]
    return found


def peak_mib(process, name):
    """Most memory that a process of this name has had so far; 0 if it has ended, or has not become that program yet."""
    with suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        found = re.match(rf"Name:\s+{name}.*^VmHWM:\s+(\d+) kB", status, re.MULTILINE | re.DOTALL)
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


def write_long(folder, frames):
    path = folder / f"{frames}.mp4"
    picture = f"testsrc2=s=64x64:r=25,trim=end_frame={frames}"
    run_ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", path)
    return path


def test_memory_does_not_grow_with_the_length(weights, tmp_path):
    peaks = {}
    for frames in (120, 1_200, 20_000):
        out = tmp_path / str(frames)
        peaks[frames] = measure(write_long(tmp_path, frames), out, weights)
        report = json.loads((out / "report.json").read_text())
        assert report["input"]["frames_decoded"] == frames
        assert len(list((out / "masks").iterdir())) == frames
        assert len((out / "frames.csv").read_text().splitlines()) == frames + 1
        assert sum(1 for _ in read_frames(out / "overlay.mp4")) == frames
    short = peaks[120]
    for frames in (1_200, 20_000):
        for name in Peak._fields:
            assert getattr(peaks[frames], name) <= 1.03 * getattr(short, name) + SLACK_MIB, (name, peaks)


def test_one_frame_of_8k(weights, tmp_path):
    source = write_clip(tmp_path / "8k.mp4", 1, size=(4320, 7680))
    peak = measure(source, tmp_path / "out", weights)
    assert peak.own_mib < 2_500
    assert peak.ffmpeg_mib < 2_500
    assert read_mask(tmp_path / "out" / "masks" / "00000000.png").shape == (4320, 7680)
    (overlay,) = read_frames(tmp_path / "out" / "overlay.mp4")
    assert overlay.image.shape == (4320, 7680, 3)
