"""Media that are damaged, or made to do harm: one line or less frames, never a traceback, a hang or all the memory."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import pytest

from tests.helpers.command_line import call
from tests.helpers.media import numbered_image, read_number, write_clip
from tests.helpers.spoiled_media import KINDS, spoil, write_whole
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.errors import InputError
from tfcseg.media import frames, probing, reader
from tfcseg.media.images import read_image
from tfcseg.media.reader import open_frames

ROOT = Path(__file__).parents[2]
MOST_FRAMES = 3000
"""A gap of a minute is believed, at 25 frames per second, and there may be one before the frames and one after."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# Bytes changed at random.


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_spoiled_files(tmp_path, kind):
    check_spoiled(tmp_path, kind, range(15))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_spoiled_files(tmp_path, kind):
    check_spoiled(tmp_path, kind, range(15, 215))


def check_spoiled(folder, kind, seeds):
    program = (sys.executable, ROOT / "tests" / "helpers" / "spoiled_media.py", folder, kind, seeds.start, seeds.stop)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    hang_s = 120 + 3 * len(seeds)  # one takes 50 ms where nothing else runs
    done = subprocess.run(
        [*map(str, program)], cwd=folder, env=environment, capture_output=True, text=True, timeout=hang_s, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # nothing may speak beside our messages
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [outcome["seed"] for outcome in outcomes] == list(seeds)
    for outcome in outcomes:
        assert outcome["frames"] or outcome["message"], outcome
        assert outcome["frames"] <= MOST_FRAMES, outcome
        assert max(outcome["peak_mib"], outcome["decoder_peak_mib"]) < 500, outcome
        for line in (outcome["message"], *outcome["warnings"]):
            assert line.isprintable(), outcome
        if outcome["message"]:
            assert outcome["message"].startswith(str(folder)), outcome
    assert any(outcome["message"] or outcome["warnings"] for outcome in outcomes)
    assert {path.relative_to(folder).parts[0] for path in folder.rglob("*")} <= {f"clip.{kind}", "images"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_command_on_a_spoiled_file(tmp_path, weights, kind):
    source, damaged = write_whole(tmp_path, kind)
    damaged.write_bytes(spoil(damaged.read_bytes(), 2, kind))
    before, out = tree(tmp_path), tmp_path / "out"
    done = call("run", source, "-o", out, "-m", weights, "--no-flow-consistency", "-q")
    assert before == {path: time for path, time in tree(tmp_path).items() if out not in (path, *path.parents)}
    if done.returncode:
        assert done.returncode == 1
        assert done.error.startswith(str(source))
        assert not out.exists()
    else:
        assert {"overlay.mp4", "masks", "frames.csv", "report.json"} <= {path.name for path in out.iterdir()}
        for line in done.stderr.splitlines():
            assert line.startswith("warning: ")


# What a few bytes can claim.


def with_wrong_time(data, time_ms):
    """A Matroska file whose third cluster begins at ``time_ms``."""
    clusters = [at for at in range(len(data)) if data.startswith(b"\x1fC\xb6u", at)]
    at = data.index(b"\xe7\x82", clusters[2])
    size = int.from_bytes(data[clusters[2] + 4 : clusters[2] + 6], "big") & 0x3FFF
    new_size = (0x4000 | size + 2).to_bytes(2, "big")
    before = data[: clusters[2] + 4] + new_size + data[clusters[2] + 6 : at]
    return before + b"\xe7\x84" + struct.pack(">I", time_ms) + data[at + 4 :]


@pytest.mark.parametrize("days", [0.05, 1, 40])
def test_one_wrong_time_does_not_fill_days_with_copies(tmp_path, days):
    path = write_clip(tmp_path / "clip.mkv", 40, extra=("-cluster_time_limit", "200", "-g", "5"))
    path.write_bytes(with_wrong_time(path.read_bytes(), int(days * 86_400_000)))
    with open_frames(path) as source:
        numbers = [read_number(frame.image) for frame in source]
    assert len(numbers) <= 41
    assert {*range(11), *range(20, 40)} <= set(numbers)
    assert source.warnings[-1].startswith(("the times of the video jump ", "the video is damaged"))


@pytest.fixture
def small_limit(monkeypatch):
    """100 million pixels would take seconds to make."""
    for module in (frames, probing, reader):
        monkeypatch.setattr(module, "MAX_PIXELS", 64 * 48)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_frames_too_large_for_the_memory_are_refused(tmp_path, small_limit, suffix):
    fits = write_clip(tmp_path / f"fits.{suffix}", 3)
    with open_frames(fits) as source:
        assert len(list(source)) == 3
    path = write_clip(tmp_path / f"large.{suffix}", 3, size=(50, 64))
    with pytest.raises(InputError, match=rf"large\.{suffix}: pictures of 64x50 are not read, .* million pixels is the"):
        open_frames(path)


def test_frames_that_become_too_large_are_left_out(tmp_path, small_limit):
    first, second = write_clip(tmp_path / "1.ts", 20), write_clip(tmp_path / "2.ts", 20, size=(480, 640))
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with open_frames(path) as source:
        assert [read_number(frame.image) for frame in source] == list(range(20))
    (warning,) = source.warnings
    assert warning.startswith("the video is damaged, pictures or parts of them may be missing (")


def png_of(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def claiming(suffix, width, height, *, upside_down=True):
    """An image file of a few pixels that claims ``width`` × ``height``."""
    if suffix == "png":
        return png_of(width, height)
    data = bytearray(cv2.imencode(f".{suffix}", numbered_image(1))[1].tobytes())
    if suffix == "jpg":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    elif suffix == "bmp":
        data[18:26] = struct.pack("<ii", width, -height if upside_down else height)
    else:
        for tag, value in ((256, width), (257, height)):
            at = data.index(struct.pack("<H", tag), struct.unpack_from("<I", data, 4)[0])
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(data)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_images_that_claim_to_be_huge_are_refused_unread(tmp_path, suffix):
    path = tmp_path / f"huge.{suffix}"
    path.write_bytes(claiming(suffix, 65_000, 30_000))
    with pytest.raises(InputError, match=rf"huge\.{suffix}: pictures of 65000x30000 are not read, 100 million"):
        read_image(path)
    path.write_bytes(claiming(suffix, 64, 48, upside_down=False))
    if suffix != "png":
        assert read_number(read_image(path)) == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_headers_that_end_too_early_are_damage(tmp_path, suffix):
    data = cv2.imencode(f".{suffix}", numbered_image(1))[1].tobytes()
    for length in (*range(1, 60), len(data) // 2):
        path = tmp_path / f"{length}.{suffix}"
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=rf"{length}\.{suffix}: "):
            read_image(path)


def test_a_wrong_checksum_is_damage_although_the_picture_could_be_decoded(tmp_path):
    data = bytearray(cv2.imencode(".png", numbered_image(1))[1].tobytes())
    data[data.index(b"IEND") - 5] ^= 1  # of the checksum itself
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.png: not an image, or a damaged one"):
        read_image(tmp_path / "a.png")


def test_spoiling_is_the_same_every_time():
    assert spoil(bytes(5000), 3, "mp4") == spoil(bytes(5000), 3, "mp4") != spoil(bytes(5000), 4, "mp4")


@pytest.mark.parametrize(
    "seconds", ["00:00:inf", "00:00:nan", "-9:00:00", "99999999:00:1", "00:00:1e300", "1e308:1e308:1"]
)
def test_durations_that_make_no_sense_are_ignored(tmp_path, seconds):
    path = write_clip(tmp_path / "clip.mkv", 10)
    told = b"00:00:00.400000000"
    data = path.read_bytes()
    assert told in data
    path.write_bytes(data.replace(told, seconds.encode().ljust(len(told))))
    with open_frames(path) as source:
        assert len(list(source)) == 10
    assert source.info.duration_s == pytest.approx(0.4)  # of the whole file
    assert source.warnings == []


def test_damage_that_the_decoder_conceals_is_said(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", 50)
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 400, 20):
        data[at] ^= 255
    path.write_bytes(data)
    with open_frames(path) as source:
        assert len(list(source)) == 50
    (warning,) = source.warnings
    assert warning.startswith("the video is damaged")
