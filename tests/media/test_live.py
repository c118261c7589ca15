"""Live sources: one connection, read as it comes; who is too slow misses frames, which are counted."""

import itertools
import sys
import time
from fractions import Fraction

import numpy as np
import pytest

from tests.helpers.command_line import call
from tests.helpers.live_sender import closed_port, ffmpeg_sends, port_for, rtsp_server, sending
from tests.helpers.media import children, read_number, write_clip
from tfcseg.errors import InputError, LostConnection
from tfcseg.media import streams
from tfcseg.media.frames import Frame, FrameSource, VideoInfo
from tfcseg.media.reader import open_frames, probe
from tfcseg.media.source import Source
from tfcseg.media.streams import NewestFrames, without_gaps

COUNT = 100


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("live") / "clip.mkv", COUNT, extra=("-g", "5", "-bf", "0"))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(streams, "_ANALYSED_S", 1.0)
    monkeypatch.setattr(streams, "LIVE_TIMEOUT_S", 3.0)


def at(clip, scheme):
    return rtsp_server(clip) if scheme == "rtsp" else sending(clip, scheme)


def live_source(address):
    return Source.of(address, allow_network=True, live=True)


@pytest.mark.parametrize("scheme", ["http", "tcp", "udp", "srt", "rtsp"])
def test_frames_come_over_one_connection_until_it_breaks(clip, scheme):
    before = children()
    with at(clip, scheme) as (address, sender):
        with open_frames(live_source(address)) as frames:
            assert (frames.info.frame_rate, frames.info.path) == (25, address)
            found = [read_number(frame.image) for frame in itertools.islice(frames, 30)]
            sender.kill()
            with pytest.raises(LostConnection, match=rf"^{scheme}://.*: the stream ended after \d+ frames: ") as caught:
                found += [read_number(frame.image) for frame in frames if not frame.is_held]
        assert "\n" not in str(caught.value)
        sender.wait()
        assert children() == before
    assert all((after - number) % COUNT == 1 for number, after in itertools.pairwise(found))


@pytest.mark.parametrize("audio", [None, ("sine", ("-c:a", "aac", "-shortest"))], ids=["silent", "with sound"])
def test_a_late_keyframe_is_waited_for(tmp_path, audio):
    clip = write_clip(tmp_path / "clip.mkv", 200, audio=audio, extra=("-g", "100", "-keyint_min", "100"))
    with sending(clip, "udp") as (address, _):
        time.sleep(1)
        with open_frames(live_source(address)) as frames:
            assert frames.info.frame_rate == 25
            assert read_number(next(frames).image) == 100


def test_a_stream_without_keyframes_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(streams, "_TS_ANALYSED_S", 0.5)
    clip = write_clip(tmp_path / "clip.mkv", 200, extra=("-g", "200", "-keyint_min", "200"))
    with sending(clip, "udp") as (address, _):
        time.sleep(1)
        with pytest.raises(InputError, match=f"^{address}: cannot be read: no keyframe came in time; let the sender"):
            open_frames(live_source(address))


def test_udp_carries_other_formats_than_mpeg_ts(clip):
    with port_for("udp") as port:
        address = f"udp://127.0.0.1:{port}"
    sender = ffmpeg_sends(clip, "-bsf:v", "h264_mp4toannexb", "-f", "h264", address)
    try:
        with open_frames(live_source(address)) as frames:
            numbers = [read_number(frame.image) for frame in itertools.islice(frames, 30) if not frame.is_held]
    finally:
        sender.kill()
        sender.wait()
    assert all((after - number) % COUNT == 1 for number, after in itertools.pairwise(numbers))
    assert len(numbers) > 5


def test_what_cannot_be_read_is_one_line(tmp_path):
    with closed_port() as port:
        address = f"tcp://127.0.0.1:{port}"
        with pytest.raises(InputError, match=f"^{address}: cannot be read: .*Connection refused$"):
            open_frames(live_source(address))
        with pytest.raises(
            InputError, match=r"^rtsp://me@127\.0\.0\.1:\d+/a: cannot be read: .*Connection refused$"
        ) as caught:
            open_frames(live_source(f"rtsp://me:secret@127.0.0.1:{port}/a"))
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="can be read only once"):
        probe("rtsp://127.0.0.1/a", allow_network=True)
    done = call("run", "udp://127.0.0.1:5000", "-o", tmp_path / "out")
    assert (done.returncode, done.error) == (
        2,
        "udp://127.0.0.1:5000: is on the network, which is read only with --allow-network",
    )
    assert not list(tmp_path.iterdir())


def test_the_connection_can_be_ended_while_a_frame_is_waited_for(clip):
    with sending(clip, "tcp") as (address, _), open_frames(live_source(address)) as frames:
        newest = NewestFrames(frames)
        first = next(newest)
        newest.close()
        rest = list(newest)
    assert len(rest) <= 4
    assert not first.is_held


# --- who is too slow


def made_frames(indices, *, pause_s=0.0, at_most=None):
    def make():
        for index in indices:
            time.sleep(pause_s)
            yield Frame(index, index / 25, np.full((2, 2, 3), index % 256, np.uint8), is_held=False)
        if at_most:
            raise LostConnection(at_most)

    info = VideoInfo(Source.of("0"), 2, 2, Fraction(25), None, None, 0, None)
    return FrameSource(info, make(), [])


def test_a_burst_loses_nothing_for_who_keeps_pace():
    newest = NewestFrames(made_frames(range(4)))
    time.sleep(0.2)
    assert [frame.index for frame in newest] == [0, 1, 2, 3]
    assert newest.dropped == 0


def test_who_is_late_gets_the_newest_and_everything_is_counted():
    newest = NewestFrames(made_frames(range(1000), at_most="gone"))
    newest._thread.join()  # all have come
    assert next(newest).index == 999
    with pytest.raises(LostConnection, match="gone"):
        next(newest)
    assert newest.dropped == 999
    assert list(newest) == []


def test_frames_that_repeat_a_picture_do_not_wait():
    frames = made_frames(range(3))
    held = Frame(3, 0.12, np.zeros((2, 2, 3), np.uint8), is_held=True)
    newest = NewestFrames(itertools.chain(frames, [held]))
    assert [frame.index for frame in newest] == [0, 1, 2]


def test_gaps_are_filled():
    frames = made_frames([3, 4, 7])
    filled = list(without_gaps(frames, 25.0))
    assert [frame.index for frame in filled] == [0, 1, 2, 3, 4]
    assert [int(frame.image[0, 0, 0]) for frame in filled] == [3, 4, 4, 4, 7]
    assert [frame.is_held for frame in filled] == [False, False, True, True, False]
    assert [frame.time_s for frame in filled] == pytest.approx([0.12, 0.16, 0.20, 0.24, 0.28])


def test_filling_gives_up_before_it_makes_everything_late():
    started_s = time.monotonic()
    filled = []
    for frame in without_gaps(made_frames([0, 50]), 25.0):  # a gap of 2 s
        time.sleep(0.1 if frame.is_held else 0)
        filled.append(frame)
    assert time.monotonic() - started_s < 3
    assert 1 <= sum(frame.is_held for frame in filled) <= 11
    assert [frame.index for frame in filled] == list(range(len(filled)))
    assert filled[-1].time_s == 2.0


# --- cameras


@pytest.mark.parametrize("coding", [("-c:v", "rawvideo", "-pix_fmt", "yuyv422"), ("-c:v", "mjpeg", "-q:v", "2")])
def test_a_camera_is_read_like_any_live_source(monkeypatch, tmp_path, coding):
    filmed = write_clip(tmp_path / "filmed.nut", 60, video=coding)  # in place of the device
    monkeypatch.setattr(streams, "_camera_arguments", lambda source: ["-re", "-i", str(filmed)])
    with open_frames("0") as frames:
        assert frames.info.source.is_live
        assert [read_number(frame.image) for frame in itertools.islice(frames, 30)] == list(range(30))


@pytest.mark.skipif(sys.platform != "linux", reason="names of devices are those of Linux")
def test_a_camera_that_is_not_there_is_one_line():
    with pytest.raises(InputError, match=r"^99: cannot be read: Cannot open video device /dev/video99: No such file"):
        open_frames(99)


def test_how_macos_names_cameras(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert streams._camera_arguments(Source.of("1")) == ["-f", "avfoundation", "-framerate", "30", "-i", "1:none"]
