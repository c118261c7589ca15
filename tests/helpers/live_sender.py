"""Live senders on the loopback address: ffmpeg serves a clip at the pace at which it was filmed, again and again."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import imageio_ffmpeg

FORMATS = {"http": "mpegts", "tcp": "mpegts", "udp": "mpegts", "srt": "mpegts"}
_SUFFIXES = {"http": "/live.ts", "tcp": "?listen", "udp": "", "srt": "?mode=listener"}


@contextmanager
def closed_port():
    """A port that refuses connections, and that other programs, such as tests beside this one, do not get meanwhile."""
    with socket.socket() as held:
        # A server that allows it, too, as ffmpeg does, may still take the port.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def port_for(scheme):
    """A free port; of datagrams it is not held, since they would come to us."""
    if scheme not in ("udp", "srt"):
        with closed_port() as port:
            yield port
        return
    with socket.socket(type=socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    yield port


def ffmpeg_sends(clip, *arguments, **options):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1"]
    command += ["-i", str(clip), "-c", "copy", *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)


@contextmanager
def sending(clip, scheme):
    """Serve ``clip`` until the end of the block; yields the address to read and the process that sends."""
    listens = ("-listen", "1") if scheme == "http" else ()
    with port_for(scheme) as port:
        address = f"{scheme}://127.0.0.1:{port}"
        process = ffmpeg_sends(clip, "-f", "mpegts", *listens, address + _SUFFIXES[scheme])
        try:
            if scheme != "udp":
                _wait_for_listener(port, "udp" if scheme == "srt" else "tcp")
            yield address + (_SUFFIXES[scheme] if scheme == "http" else ""), process
        finally:
            process.kill()
            process.wait()


def _wait_for_listener(port, protocol):
    """Wait until somebody listens, without using up the only connection."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        lines = Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]
        states = {line.split()[3] for line in lines if line.split()[1].endswith(f":{port:04X}")}
        if states & {"0A", "07"}:  # listening; of datagrams: bound
            return
        time.sleep(0.02)
    raise TimeoutError(port)


@contextmanager
def rtsp_server(clip):
    """A small RTSP server for one reader at a time, who gets the RTP packets of ffmpeg within its connection."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets, socket.create_server(("127.0.0.1", 0)) as door:
        packets.bind(("127.0.0.1", 0))
        target = f"rtp://127.0.0.1:{packets.getsockname()[1]}"
        process = ffmpeg_sends(clip, "-f", "rtp", target, stdout=subprocess.PIPE)
        lines = [line.decode().strip() for line in iter(process.stdout.readline, b"\n")]
        sdp = [re.sub(r"(?<=m=video )\d+", "0", line) for line in lines if re.match(r"[a-z]=", line)]
        description = "\r\n".join([*sdp, "a=control:video", ""])
        thread = threading.Thread(target=_serve, args=(door, packets, description), daemon=True)
        thread.start()
        try:
            yield f"rtsp://127.0.0.1:{door.getsockname()[1]}/front", process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(door, packets, description):
    with suppress(OSError):
        while True:
            reader, _ = door.accept()
            with reader, reader.makefile("rb") as requests, suppress(OSError):
                _answer(reader, requests, packets, description)


def _answer(reader, requests, packets, description):
    while (line := requests.readline()) and (method := line.split()[0].decode()):
        headers = dict(line.decode().strip().split(": ", 1) for line in iter(requests.readline, b"\r\n"))
        body, extra = "", {"Session": "1"}
        if method == "DESCRIBE":
            body, extra = description, {"Content-Type": "application/sdp"}
        elif method == "SETUP":
            extra["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
        fields = {"CSeq": headers["CSeq"], "Content-Length": len(body), "Public": "DESCRIBE, SETUP, PLAY", **extra}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        reader.sendall(f"RTSP/1.0 200 OK\r\n{head}\r\n{body}".encode())
        if method == "PLAY":
            packets.settimeout(0.5)
            while True:
                with suppress(TimeoutError):
                    data = packets.recv(1 << 16)
                    reader.sendall(b"$\0" + len(data).to_bytes(2, "big") + data)
                    continue
                return  # the camera has been switched off
