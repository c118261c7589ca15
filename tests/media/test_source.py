"""What users name as a source, and what the tool knows of it before anything is opened."""

import os
from pathlib import Path

import pytest

from tfcseg.errors import UsageError
from tfcseg.media.source import Source
from tfcseg.runs.outputs import default_output


def test_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("frames.v2").mkdir()
    Path("clip.mp4").touch()
    Path("7").touch()
    Path("lost.png").symlink_to("nowhere")
    os.mkfifo("pipe")
    kinds = {
        "file": (
            "clip.mp4",
            Path("clip.mp4"),
            "none.mp4",
            "7",
            "lost.png",
            Path("http://host/a.mp4"),
            Path("8"),
            "0x1",
        ),
        "folder": ("frames.v2", "frames.v2/", tmp_path),
        "stream": ("-", "pipe", "/dev/zero"),
        "address": ("http://host/a.mp4", "rtsp://host", "UDP://@:5000", "ftp://host/a"),
        "camera": ("0", 0, "12"),
    }
    for kind, names in kinds.items():
        assert {name: Source.of(name).kind for name in names} == dict.fromkeys(names, kind)


def test_names_for_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("frames.v2").mkdir()
    titles = {
        "clip.one.mp4": "clip.one",
        "frames.v2": "frames.v2",
        ".": tmp_path.name,
        "-": "stdin",
        "0": "camera0",
        "https://host/a/walk.mp4?key=1#t=3": "walk",
        "rtsp://user:secret@host:8554/front": "front",
        "udp://127.0.0.1:5000": "127_0_0_1_5000",
        "udp://@:5000?fifo_size=9": "5000",
        "tcp://": "stream",
    }
    assert {name: Source.of(name).title for name in titles} == titles
    assert default_output("rtsp://host/front") == Path("front_tfcseg")


def test_a_password_is_in_no_name():
    for address in ("rtsp://user:secret@host/a?b=c", "http://:secret@host:80/user:me@x"):
        source = Source.of(address)
        assert "secret" not in source.name
        assert source.given == address
    assert Source.of("rtsp://user:secret@host/a").name == "rtsp://user@host/a"
    assert Source.of("http://host:80/a:b@c").name == "http://host:80/a:b@c"


def test_what_can_be_done_with_it(tmp_path):
    (tmp_path / "a.mp4").touch()
    again = {Source.of(name): name for name in (tmp_path, tmp_path / "a.mp4", "https://host/a.mp4")}
    live = ("0", "rtsp://host/a", "udp://@:1", "tcp://host:1", "srt://host:1", Source.of("http://host/a.ts", live=True))
    assert all(source.is_readable_again and not source.is_live for source in again)
    for each in map(Source.of, live):
        assert each.is_live
        assert not each.is_readable_again
        assert each.fingerprint() is None
    assert not Source.of("-").is_live
    assert not Source.of(tmp_path / "a.mp4", live=True).is_live
    with pytest.raises(UsageError, match="-: can be read only once, but it is needed twice; save it to a file first"):
        Source.of("-").check_readable_again("it is needed twice")


def test_who_forgets_the_port_is_told_what_to_write():
    for address in ("udp://5000", "tcp://host", "srt://[::1]", "udp://@5000?fifo_size=9"):
        with pytest.raises(UsageError, match=r"has no port; write [a-z]+://HOST:PORT, or udp://@:5000 to listen on"):
            Source.of(address, allow_network=True).check()
    for address in ("udp://@:5000", "tcp://host:9?listen", "srt://[::1]:9/", "rtsp://host", "http://host/a.mp4"):
        Source.of(address, allow_network=True).check()


def test_permission_stays():
    allowed = Source.of("rtsp://host/a", allow_network=True)
    Source.of(allowed).check()
    with pytest.raises(UsageError, match="rtsp://me@host/a: is on the network"):
        Source.of("rtsp://me:secret@host/a").check()
    with pytest.raises(UsageError, match="the input is empty"):
        Source.of("").check()
