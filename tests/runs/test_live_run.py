"""Runs on live sources: whatever ends them, all files are whole, and what came too late is counted."""

import asyncio
import csv
import json
import os
import re
import signal
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import tfcseg
from tests.helpers.command_line import call, interruptible
from tests.helpers.live_sender import closed_port, rtsp_server, sending
from tests.helpers.media import children, read_number, write_clip
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.errors import LostConnection, UsageError
from tfcseg.media import streams
from tfcseg.media.reader import read_frames


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("live") / "clip.mkv", 250, extra=("-g", "5", "-bf", "0"))


@pytest.fixture(autouse=True)
def short_analysis(monkeypatch):
    monkeypatch.setattr(streams, "_ANALYSED_S", 0.5)


def wait_for(path):
    deadline_s = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.02)


def check_whole(out):
    """All files agree; returns the report's input."""
    report = json.loads((out / "report.json").read_text())
    with (out / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    count = report["input"]["frames_decoded"]
    masks = sorted(path.name for path in (out / "masks").iterdir())
    assert masks == [f"{index:08d}.png" for index in range(count)]
    assert [int(row["frame"]) for row in rows] == list(range(count))
    assert len(list(read_frames(out / "overlay.mp4"))) == count
    assert "</html>" in (out / "report.html").read_text()
    assert sorted(path.name for path in out.iterdir()) == sorted({*report["outputs"].values()})
    assert report["options"]["latency"] == "low"
    return report["input"]


def test_a_run_ends_at_the_time_that_was_asked_for(clip, weights, tmp_path):
    with rtsp_server(clip) as (address, _):
        done = call("run", address, "--allow-network", "-m", weights, "-o", tmp_path / "out", "--end", 1)
    assert done.returncode == 0, done.stderr
    facts = check_whole(tmp_path / "out")
    assert facts["path"] == address
    segmented = facts["frames_decoded"] - facts["frames_repeated"]
    assert segmented + facts["frames_dropped"] == 25
    if facts["frames_dropped"]:
        assert f"{facts['frames_dropped']} late frames" in done.stderr


def test_a_lost_connection_leaves_whole_files(clip, weights, tmp_path):
    out = tmp_path / "out"
    with sending(clip, "http") as (address, sender):
        killing = threading.Thread(target=lambda: (wait_for(out / "masks" / "00000002.png"), sender.kill()))
        killing.start()
        options = ("--latency", "low", "--allow-network")
        done = call("run", address, *options, "-m", weights, "-o", out, "--no-flow-consistency", "--json")
        killing.join()
    assert done.returncode == 1
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith(f"error: {address}: the stream ended after ")
    assert last.endswith("; all results up to there are complete")
    assert done.stderr.count("the stream ended after") == 1
    check_whole(out)
    report = json.loads((out / "report.json").read_text())
    assert json.loads(done.stdout) == report
    (warning,) = (each for each in report["warnings"] if "ended" in each)
    assert last == f"error: {warning}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_well(clip, weights, tmp_path, number):
    def on_frame(frame, info):
        if frame.index == 5:
            os.kill(os.getpid(), number)

    before, handler = children(), signal.getsignal(number)
    with sending(clip, "tcp") as (address, sender), interruptible():
        report = tfcseg.run(address, tmp_path / "out", weights, allow_network=True, on_frame=on_frame)
        assert {sender.pid} == children() - before
    assert signal.getsignal(number) is handler
    assert report.input.frames_decoded >= 6
    check_whole(tmp_path / "out")


def test_a_second_signal_interrupts(clip, weights, tmp_path):
    def on_frame(frame, info):
        if frame.index in (5, 6):
            os.kill(os.getpid(), signal.SIGINT)

    with sending(clip, "tcp") as (address, _), interruptible(), pytest.raises(KeyboardInterrupt):
        tfcseg.run(address, tmp_path / "out", weights, allow_network=True, on_frame=on_frame)
    assert not (tmp_path / "out" / "report.json").exists()
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_a_slow_machine_drops_frames_and_keeps_the_time(clip, weights, tmp_path):
    def on_frame(frame, info):
        if not frame.is_held:
            time.sleep(0.3)

    with sending(clip, "tcp") as (address, _):
        report = tfcseg.run(address, tmp_path / "out", weights, allow_network=True, end_s=2.0, on_frame=on_frame)
    facts = check_whole(tmp_path / "out")
    segmented = facts["frames_decoded"] - facts["frames_repeated"]
    assert segmented < 15
    assert segmented + facts["frames_dropped"] == 50
    assert report.input.frames_dropped == facts["frames_dropped"]
    with (tmp_path / "out" / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label_change"] for row in rows if row["is_held"] == "1"} == {""}
    changes = [float(row["label_change"]) for row in rows if row["label_change"]]
    assert report.stability.label_change == pytest.approx(sum(changes) / len(changes), abs=1e-5)
    assert f"{facts['frames_dropped']} dropped; the frame before" in (tmp_path / "out" / "report.html").read_text()


def test_both_sides_need_a_future(clip, weights, tmp_path):
    with sending(clip, "tcp") as (address, _), pytest.raises(UsageError, match="both sides need the next keyframe"):
        tfcseg.run(address, tmp_path / "out", weights, allow_network=True, sides="both")
    done = call("compare", "rtsp://127.0.0.1/a", "--allow-network")
    assert "can be read only once, but every mode reads the video" in done.error


# --- Python


def test_segment_yields_the_newest_frames(clip, weights):
    model = tfcseg.load_model(weights)
    before = children()
    with sending(clip, "tcp") as (address, sender):
        numbers = []
        with closing(tfcseg.segment(address, model, latency="low", allow_network=True)) as frames:
            for frame in frames:
                numbers.append(frame.index)
                assert frame.labels.shape == (48, 64)
                assert read_number(frame.image) == frame.index % 250
                time.sleep(0.2)
                if len(numbers) == 10:
                    break
        assert {sender.pid} == children() - before
    assert numbers == sorted(set(numbers))
    assert numbers[-1] > 20  # some were left out


def test_segment_says_how_it_ended(clip, weights):
    with sending(clip, "tcp") as (address, sender):
        frames = tfcseg.segment(address, weights, allow_network=True)
        next(frames)
        sender.kill()
        with pytest.raises(LostConnection, match="the stream ended after"):
            list(frames)


def test_segment_in_asyncio(clip, weights):
    async def some(address):
        found = []
        with closing(tfcseg.segment(address, weights, latency="low", allow_network=True)) as frames:
            async for frame in frames:
                found.append(frame.index)
                if len(found) == 3:
                    break
        return found

    with sending(clip, "tcp") as (address, _):
        assert len(asyncio.run(some(address))) == 3


def test_close_ends_a_wait_for_a_frame(clip, weights):
    """From another thread, and after a time limit of asyncio: the stream stands still, and no frame comes."""

    async def wait(frames):
        with closing(frames):
            async with asyncio.timeout(1):
                async for _ in frames:
                    pass

    model, before = tfcseg.load_model(weights), children()
    for in_thread in (True, False):
        with sending(clip, "tcp") as (address, sender):
            frames = tfcseg.segment(address, model, allow_network=True)
            next(frames)
            sender.send_signal(signal.SIGSTOP)
            if in_thread:
                timer = threading.Timer(1, frames.close)
                timer.start()
                assert len(list(frames)) < 250
                timer.join()
            else:
                with pytest.raises(TimeoutError):
                    asyncio.run(wait(frames))
            assert children() - before == {sender.pid}


def test_the_example_of_the_page_runs(clip, monkeypatch, tmp_path):
    page = (Path(__file__).parents[2] / "assets" / "live.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    with rtsp_server(clip) as (address, sender):
        block = block.replace("rtsp://camera.local/front", address)
        with pytest.raises(LostConnection):
            exec(compile(block, "live.md", "exec"), {"print": lambda *facts: sender.kill()})


@pytest.fixture
def refusing():
    """Addresses with a password, where nobody is."""
    with ExitStack() as ports:
        yield [
            f"{scheme}://me:secret@127.0.0.1:{ports.enter_context(closed_port())}/front"
            for scheme in ("tcp", "http", "tcp")
        ]


def test_a_password_is_printed_and_logged_nowhere(weights, refusing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--allow-network", "-m", weights, "-v", "--log-file", "log.jsonl")
    for some in (refusing, [*refusing[:1], refusing[0]], refusing[:1]):
        done = call("run", *some, *options)
        assert done.returncode == 1
        assert "me@127.0.0.1" in done.stderr
        assert "secret" not in done.stderr + (tmp_path / "log.jsonl").read_text()
    with pytest.raises(tfcseg.BatchError, match="me@127") as caught:
        tfcseg.run(refusing, model=weights, allow_network=True)
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.glob("*secret*"))


def test_segment_needs_permission_at_once(weights):
    with pytest.raises(UsageError, match="is on the network, which is read only with allow_network=True"):
        tfcseg.segment("rtsp://127.0.0.1/front", weights, latency="low")
