"""The network: nothing reaches it unless an address was given on purpose, and then only that address is asked."""

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from tests.helpers.command_line import call
from tests.helpers.media import children, read_number, write_clip, write_video
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.errors import InputError, UsageError
from tfcseg.media import ffmpeg, probing
from tfcseg.media.reader import open_frames, probe, read_frames
from tfcseg.media.source import Source

FRAMES = 12


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    return write_clip(path, FRAMES, audio=("sine=d=0.48", ("-c:a", "aac")), extra=("-movflags", "+faststart"))


class Server:
    """Serves what is in ``pages`` from this machine, and remembers which paths were asked for."""

    def __init__(self):
        self.pages = {}
        self.asked = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                status, headers, body = server.pages.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"

    def put(self, path, body, status=200, **headers):
        """Serve ``body`` at ``path``; returns its address."""
        self.pages[path] = (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
        return self.address + path

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()


@pytest.fixture
def server():
    with Server().running() as server:
        yield server


def playlist(kind, target):
    """A text that makes ffmpeg open ``target``, if it is let."""
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=control:{target}\n",
        "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        f'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        f'bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    }[kind].encode()


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "sdp", "mpd"])
def test_a_list_on_disk_reaches_nothing(server, clip, weights, tmp_path, kind):
    url = server.put("/clip.mp4", clip.read_bytes())
    for name, permission in ((f"list.{kind}", ()), ("list.mp4", ("--allow-network",))):
        (tmp_path / name).write_bytes(playlist(kind, url))
        done = call("run", tmp_path / name, "-o", tmp_path / "out", "-m", weights, *permission)
        assert done.returncode == 1
        assert f"{name}: " in done.error
        assert not (tmp_path / "out").exists()
    assert server.asked == []


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat"])
def test_protocols_alone_keep_lists_from_the_network(server, clip, tmp_path, kind):
    """Should a format that is enabled ever learn to point elsewhere."""
    path = tmp_path / f"list.{kind}"
    path.write_bytes(playlist(kind, server.put("/clip.mp4", clip.read_bytes())))
    arguments = ffmpeg.input_arguments(path)
    at = arguments.index("-format_whitelist")
    del arguments[at : at + 2]
    unsafe = ["-safe", "0"] if kind == "ffconcat" else []
    with ffmpeg.FfmpegProcess([*unsafe, *arguments, "-f", "null", "-"]) as process:
        assert process.wait() != 0
    limits = {"protocol_whitelist": ffmpeg.LOCAL_PROTOCOLS, **({"safe": "0"} if unsafe else {})}
    with path.open("rb") as file, pytest.raises(av.FFmpegError), av.open(file, container_options=limits) as container:
        next(container.decode(video=0))
    assert server.asked == []
    with av.open(str(path), container_options={**limits, "protocol_whitelist": "file,http,tcp"}) as container:
        next(container.decode(video=0))
    assert set(server.asked) == {"/clip.mp4"}


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "mpd"])
def test_a_list_on_a_server_leads_nowhere(server, clip, kind):
    for target in (server.put("/clip.mp4", clip.read_bytes()), "clip.mp4", f"file://{clip}", str(clip)):
        url = server.put(f"/list.{kind}", playlist(kind, target))
        with pytest.raises(InputError, match=r"not a video that can be read from a server"):
            open_frames(url, allow_network=True)
    assert set(server.asked) == {f"/list.{kind}"}


def test_an_address_needs_permission(server, clip, weights, tmp_path):
    url = server.put("/clip.mp4", clip.read_bytes())
    done = call("run", url, "-o", tmp_path / "out", "-m", weights)
    assert (done.returncode, done.error) == (
        2,
        f"{url}: is on the network, which is read only with --allow-network",
    )
    for read in (probe, open_frames, lambda address: next(read_frames(address))):
        with pytest.raises(UsageError, match="--allow-network"):
            read(url)
    assert server.asked == []
    assert list(tmp_path.iterdir()) == []


def test_an_address_is_read_with_its_sound(server, clip, weights, tmp_path):
    url = server.put("/clip.mp4?key=1", clip.read_bytes())
    out = tmp_path / "out"
    done = call(
        "run", url, "-o", out, "-m", weights, "--allow-network", "--no-flow-consistency", "--no-legend", "--alpha", 0
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert (report["input"]["path"], report["input"]["audio"], report["warnings"]) == (url, "aac (copied)", [])
    assert [read_number(frame.image) for frame in read_frames(out / "overlay.mp4")] == list(range(FRAMES))
    assert probe(out / "overlay.mp4").audio == "aac"
    assert set(server.asked) == {"/clip.mp4?key=1"}


def test_a_part_is_read_where_the_server_cannot_skip(server, clip):
    url = server.put("/clip.mp4", clip.read_bytes())
    numbers = [read_number(frame.image) for frame in read_frames(url, start_s=0.2, end_s=0.4, allow_network=True)]
    assert numbers == list(range(5, 10))


def test_a_connection_that_breaks_gives_what_has_come(server, tmp_path):
    data = write_clip(tmp_path / "long.mkv", 100).read_bytes()
    url = server.put("/long.mkv", data[: len(data) * 2 // 3], Content_Length=str(len(data)))
    with open_frames(url, allow_network=True) as source:
        count = len(list(source))
    assert 30 < count < 90
    (warning,) = source.warnings
    assert warning.startswith(f"decoded {count} of about 100 frames: the file is cut off or damaged")


def test_what_a_server_cannot_give_is_one_line(server, clip, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (10, 240, 320, 3), np.uint8)
    late = write_video(tmp_path / "late.mp4", list(noise)).read_bytes()
    before = children()
    for path, body, status, message in (
        ("/gone.mp4", b"", 404, r"gone\.mp4: cannot be read: .*404"),
        ("/page.mp4", b"<html>sign in</html>", 200, r"page\.mp4: not a video that can be read from a server"),
        ("/empty.mp4", b"", 200, r"empty\.mp4: not a video that can be read from a server"),
        ("/late.mp4", late, 200, r"late\.mp4: no frame could be decoded from its beginning; .*\+faststart"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            open_frames(server.put(path, body, status), allow_network=True)
        assert "\n" not in str(caught.value)
    assert children() == before


def test_a_redirection_leads_to_no_local_file(server, clip):
    for target in (f"file://{clip}", f"file:{clip}", f"concat:{clip}", f"subfile,,start,0,end,0,,:{clip}"):
        with pytest.raises(InputError):
            open_frames(server.put("/moved.mp4", b"", 302, Location=target), allow_network=True)


def test_a_silent_server_is_given_up(monkeypatch):
    for module in (ffmpeg, probing):
        monkeypatch.setattr(module, "NETWORK_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/clip.mp4"
        with pytest.raises(InputError, match=r"clip\.mp4: the server sent nothing for 0\.3 s"):
            open_frames(url, allow_network=True)
        with ffmpeg.FfmpegProcess([*ffmpeg.input_arguments(Source.of(url)), "-f", "null", "-"]) as process:
            assert process.wait() != 0


@pytest.mark.parametrize("scheme", ["ftp", "rtmp", "file", "concat", "HLS+http", "pipe"])
def test_other_addresses_are_refused_with_and_without_permission(scheme):
    for permission in (False, True):
        with pytest.raises(UsageError, match=r"\S+:// addresses cannot be read, only http://, https://, rtsp://"):
            open_frames(f"{scheme}://127.0.0.1:9/clip.mp4", allow_network=permission)


def test_a_file_that_is_named_like_an_address_is_a_file(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("http:/127.0.0.1:9").mkdir(parents=True)
    Path("http:/127.0.0.1:9/clip.mp4").write_bytes(clip.read_bytes())
    with open_frames("http://127.0.0.1:9/clip.mp4") as source:
        assert len(list(source)) == FRAMES
