"""Sources of frames: a file, a folder of images, a stream, an address or a camera."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, Union

from tfcseg.errors import UsageError, without_passwords

Kind: TypeAlias = Literal["file", "folder", "stream", "address", "camera"]
Given: TypeAlias = Union[str, Path, int, "Source"]
"""What users give as a source: a path, ``-`` for stdin, an address, or the number of a camera."""

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".jfif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Suffixes of files that hold one picture."""

VIDEO_SUFFIXES = frozenset(
    {
        *(".3gp", ".asf", ".av1", ".avi", ".dv", ".flv", ".gif", ".gxf", ".h264", ".hevc", ".ivf", ".m2ts", ".m4v"),
        *(".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".obu", ".ogv", ".rm"),
        *(".ts", ".vob", ".webm", ".wmv", ".y4m"),
    }
)
"""Suffixes of videos in a folder. A file that is named directly may have any suffix."""

SERVER_SCHEMES = ("http", "https")
"""Schemes of addresses that usually lead to files, which can be read again."""
LIVE_SCHEMES = ("rtsp", "rtsps", "udp", "tcp", "srt")
"""Schemes of addresses that send frames as they are filmed."""

_WITH_PORT = ("udp", "tcp", "srt")  # schemes without a usual port
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PORT = re.compile(r"[^/]+://[^/?#]*:\d+(?![^/?#])")
_PATH_OF_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # paths have one slash where there were two
_CAMERA = re.compile(r"(?:/dev/video)?(\d{1,3})")


@dataclass(frozen=True, slots=True)
class Source:
    """A source of frames, made by `Source.of`."""

    given: str  # as given by the user
    kind: Kind
    may_use_network: bool = False
    is_wanted_live: bool = False  # read a server's address like a camera: frames as they come

    @classmethod
    def of(cls, given: Given, *, allow_network: bool = False, live: bool = False) -> Source:
        """Recognise what ``given`` is. A file named like an address or the number of a camera is a file."""
        if isinstance(given, Source):  # keeps its permissions
            allow_network, live = given.may_use_network or allow_network, given.is_wanted_live or live
            return replace(given, may_use_network=allow_network, is_wanted_live=live)
        return cls(str(given), _kind(str(given), is_path=isinstance(given, Path)), allow_network, live)

    def check(self) -> None:
        """Raise UsageError for an empty name, and for an address that is a path, of an unknown scheme, or without
        permission."""
        if not self.given:
            raise UsageError("the input is empty: a file, a folder or - is needed")
        if self.kind == "file" and _PATH_OF_ADDRESS.match(self.given) and not os.path.lexists(self.given):
            raise UsageError(f"{self.name}: is an address, but only files are read here; save it to a file first")
        if self.kind != "address":
            return
        if self.scheme not in (*SERVER_SCHEMES, *LIVE_SCHEMES):
            known = ", ".join(f"{scheme}://" for scheme in (*SERVER_SCHEMES, *LIVE_SCHEMES))
            raise UsageError(f"{self.name}: {self.scheme}:// addresses cannot be read, only {known}")
        if self.scheme in _WITH_PORT and not _PORT.match(self.given):
            raise UsageError(
                f"{self.name}: has no port; write {self.scheme}://HOST:PORT, or udp://@:5000 to listen on port 5000"
            )
        if not self.may_use_network:
            raise UsageError(f"{self.name}: is on the network, which is read only with --allow-network")

    def check_readable_again(self, why: str) -> None:
        """Raise UsageError with the reason ``why`` if it can be read only once."""
        if not self.is_readable_again:
            raise UsageError(f"{self.name}: can be read only once, but {why}; save it to a file first")

    @property
    def name(self) -> str:
        """Name for messages and reports, without the password of an address."""
        return without_passwords(self.given) if self.kind == "address" else self.given

    @property
    def title(self) -> str:
        """Name for results: a file's stem, a folder's name, the end of an address, ``stdin`` or ``camera0``."""
        if self.given == "-":
            return "stdin"
        if self.camera is not None:
            return f"camera{self.camera}"
        if self.kind == "address":
            host, _, place = re.split(r"[?#]", self.given.partition("://")[2])[0].partition("/")
            return Path(place).stem or re.sub(r"\W+", "_", host.rpartition("@")[2]).strip("_") or "stream"
        path = absolute(self.given)
        return path.name if self.kind == "folder" else path.stem

    @property
    def path(self) -> Path:
        """Path of a file, a folder or a named pipe."""
        return Path(self.given)

    @property
    def key(self) -> str:
        """Text that is the same for every way to write a path."""
        return self.given if self.kind in ("address", "camera") or self.given == "-" else str(absolute(self.given))

    @property
    def scheme(self) -> str:
        """Scheme of an address in lower case."""
        return self.given.partition("://")[0].lower()

    @property
    def camera(self) -> int | None:
        """Number of the camera; None for other sources."""
        found = _CAMERA.fullmatch(self.given) if self.kind == "camera" else None
        return None if found is None else int(found[1])

    @property
    def is_images(self) -> bool:
        """Whether it is a folder or picture, which has no frame rate."""
        return self.kind == "folder" or (self.kind == "file" and self.path.suffix.lower() in IMAGE_SUFFIXES)

    @property
    def is_on_disk(self) -> bool:
        """Whether it is a file or folder."""
        return self.kind in ("file", "folder")

    @property
    def places(self) -> list[Path]:
        """Paths that results must not replace."""
        return [self.path] if self.is_on_disk else []

    @property
    def is_live(self) -> bool:
        """Whether frames come in real time: slow readers miss some, and no frame can use later ones."""
        if self.kind != "address":
            return self.kind == "camera"
        return self.scheme in LIVE_SCHEMES or self.is_wanted_live

    @property
    def is_readable_again(self) -> bool:
        """Whether it can be read from its beginning more than once."""
        return self.is_on_disk or (self.kind == "address" and not self.is_live)

    def fingerprint(self) -> str | None:
        """Hash that identifies its content; None if it is not on disk."""
        return fingerprint(self.path) if self.is_on_disk else None


def absolute(path: str | Path) -> Path:
    """Absolute path without ``..``; links are not followed."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _kind(given: str, *, is_path: bool) -> Kind:
    if given == "-":
        return "stream"
    try:
        mode = os.stat(given).st_mode  # noqa: PTH116  # a Path would read http://a as http:/a
    except (OSError, ValueError):
        if is_path or os.path.lexists(given):  # a link that leads nowhere
            return "file"
        if _ADDRESS.match(given):
            return "address"
        return "camera" if given.isascii() and given.isdigit() and _CAMERA.fullmatch(given) else "file"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISCHR(mode) and _CAMERA.fullmatch(given):
        return "camera"
    return "stream" if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode) else "file"


_SAMPLES = 64
_SAMPLE_BYTES = 1 << 14


def fingerprint(path: Path) -> str | None:
    """Hash the size of a file and samples of its content; for a folder, names, sizes and samples of some files.

    Reads at most a million bytes. Returns None if nothing can be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_file():
            _add_samples(digest, path, _SAMPLES)
            return digest.hexdigest()
        files = sorted((entry.name, entry.stat().st_size) for entry in path.iterdir() if entry.is_file())
        for name, size in files:
            digest.update(os.fsencode(name) + b"\0" + str(size).encode() + b"\0")
        for index in spread(len(files), _SAMPLES):
            _add_samples(digest, path / files[index][0], 1)
    except (OSError, ValueError):
        return None
    return digest.hexdigest()


def _add_samples(digest: hashlib._Hash, path: Path, samples: int) -> None:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode())
        blocks = -(-size // _SAMPLE_BYTES)
        for block in spread(blocks, samples):
            file.seek(block * _SAMPLE_BYTES)
            digest.update(file.read(_SAMPLE_BYTES))


def spread(count: int, samples: int) -> list[int]:
    """At most ``samples`` of the numbers below ``count``, from the first to the last."""
    return sorted({(count - 1) * part // max(1, samples - 1) for part in range(samples)}) if count else []
