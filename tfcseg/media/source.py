"""What frames are read from: a file, a folder of images, a stream, an address or a camera."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, Union

from tfcseg.errors import UsageError
from tfcseg.media.fingerprint import fingerprint

Kind: TypeAlias = Literal["file", "folder", "stream", "address", "camera"]
Given: TypeAlias = Union[str, Path, int, "Source"]
"""How users name a source: a path, ``-`` for stdin, an address, the number of a camera."""

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".jfif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Suffixes of files that hold one picture."""

SERVER_SCHEMES = ("http", "https")
"""Of addresses where files are, as a rule: they can be read again."""
LIVE_SCHEMES = ("rtsp", "rtsps", "udp", "rtp", "tcp", "srt")
"""Of addresses from which frames come as they are filmed."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CAMERA = re.compile(r"(?:/dev/video)?(\d{1,3})")
_PASSWORD = re.compile(r"(?<=://)([^/?#@:]*):[^/?#@]*@")


@dataclass(frozen=True, slots=True)
class Source:
    """Where frames come from, and what can be done there. `Source.of` makes one."""

    given: str
    """Exactly as the user named it."""
    kind: Kind
    may_use_network: bool = False
    is_wanted_live: bool = False
    """Frames are wanted as they come: a server's address is then read like a camera."""

    @classmethod
    def of(cls, given: Given, *, allow_network: bool = False, live: bool = False) -> Source:
        """The source that ``given`` names. What was allowed or wanted before stays so.

        A file that is named like an address, a camera or ``-`` with its folder (``./-``) is a file.
        """
        if isinstance(given, Source):
            return replace(
                given,
                may_use_network=given.may_use_network or allow_network,
                is_wanted_live=given.is_wanted_live or live,
            )
        return cls(str(given), _kind(str(given), is_path=isinstance(given, Path)), allow_network, live)

    def check(self) -> None:
        """UsageError for an empty name, and for an address that may not, or cannot, be read."""
        if not self.given:
            raise UsageError("the input is empty: a file, a folder or - is needed")
        if self.kind != "address":
            return
        if self.scheme not in (*SERVER_SCHEMES, *LIVE_SCHEMES):
            known = ", ".join(f"{scheme}://" for scheme in (*SERVER_SCHEMES, *LIVE_SCHEMES))
            raise UsageError(f"{self.name}: no {self.scheme}:// address can be read, only {known}")
        if not self.may_use_network:
            raise UsageError(f"{self.name}: is on the network, which is read only with --allow-network")

    def check_readable_again(self, why: str) -> None:
        """UsageError, which says ``why``, if it can be read only once."""
        if not self.is_readable_again:
            raise UsageError(f"{self.name}: can be read only once, but {why}; save it to a file first")

    @property
    def name(self) -> str:
        """For messages and reports: as it was given, without the password of an address."""
        return _PASSWORD.sub(r"\1@", self.given) if self.kind == "address" else self.given

    @property
    def title(self) -> str:
        """What results are called: a file's name without suffix, a folder's, the end of an address, ``camera0``."""
        if self.given == "-":
            return "stdin"
        if self.camera is not None:
            return f"camera{self.camera}"
        if self.kind == "address":
            host, _, path = re.split(r"[?#]", self.given.partition("://")[2])[0].partition("/")
            return Path(path).stem or re.sub(r"\W+", "_", host.rpartition("@")[2]).strip("_") or "stream"
        return self.absolute.name if self.kind == "folder" else self.absolute.stem

    @property
    def path(self) -> Path:
        """Of a file, a folder or a named pipe."""
        return Path(self.given)

    @property
    def absolute(self) -> Path:
        """The whole path as it is called: without ``..``, and not what a link of that name leads to."""
        return absolute(self.given)

    @property
    def key(self) -> str:
        """The same for every way to write a path."""
        return self.given if self.kind in ("address", "camera") or self.given == "-" else str(self.absolute)

    @property
    def scheme(self) -> str:
        """Of an address, in small letters."""
        return self.given.partition("://")[0].lower()

    @property
    def camera(self) -> int | None:
        """Number of the camera; None if it is none."""
        found = _CAMERA.fullmatch(self.given) if self.kind == "camera" else None
        return None if found is None else int(found[1])

    @property
    def is_images(self) -> bool:
        """Whether it is a folder or is called like a picture, and so has no frame rate of its own."""
        return self.kind == "folder" or (self.kind == "file" and self.path.suffix.lower() in IMAGE_SUFFIXES)

    @property
    def is_on_disk(self) -> bool:
        """Whether it is a file or a folder, which can be recognised later."""
        return self.kind in ("file", "folder")

    @property
    def places(self) -> list[Path]:
        """Where it lies on disk, so that no result is written there; empty for what does not."""
        return [self.path] if self.is_on_disk else []

    @property
    def is_live(self) -> bool:
        """Whether frames come as they are filmed: who is too slow misses some, and nobody can wait for later ones."""
        if self.kind != "address":
            return self.kind == "camera"
        return self.scheme in LIVE_SCHEMES or self.is_wanted_live

    @property
    def is_readable_again(self) -> bool:
        """Whether it can be read from its beginning more than once."""
        return self.is_on_disk or (self.kind == "address" and not self.is_live)

    def fingerprint(self) -> str | None:
        """By which its content is recognised (`fingerprint`); None for what is not on disk."""
        return fingerprint(self.path) if self.is_on_disk else None


def absolute(path: str | Path) -> Path:
    """The whole path as it is called: without ``..``, and not what a link of that name leads to."""
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
