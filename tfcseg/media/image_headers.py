"""Read headers of image files before decoding: their size, and whether they are complete.

Decoders would allocate any claimed size, fill missing parts with grey, and print messages on stderr.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_SHORT = 3
_ORIENTATION = 0x0112
_BOXES = 4096
_SMALL_CHUNK = 1 << 16
_BYTE = 255
_NETPBM = re.compile(rb"P[56](?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,5})\s")


class ImageHeader(NamedTuple):
    """Facts about an undecoded image."""

    size_wh: tuple[int, int] | None
    """Claimed size in pixels; None if the format is unknown, or limits the size itself."""
    damage: str
    """Damage, as the end of a sentence; empty if there is none."""
    orientation: int = 1
    """EXIF orientation (1 to 8) of PNG and WebP, whose decoders ignore it."""
    has_more: bool = False
    """Whether the file holds several pictures; decoders return the first."""


def read_header(data: bytes) -> ImageHeader:
    """Examine an image file of any format. Some damage is found only by decoding."""
    if data.startswith(_PNG_SIGNATURE):
        chunks = dict(_png_chunks(data))
        orientation = _orientation(chunks.get(b"eXIf", b""))
        return ImageHeader(_pair(data, 16, 4, "big"), _png_damage(data), orientation, b"acTL" in chunks)
    if data.startswith(_JPEG_SIGNATURE):
        return _jpeg_header(data)
    if data.startswith(b"RIFF"):  # WebP: at most 16383 pixels wide and high
        is_whole = int.from_bytes(data[4:8], "little") + 8 <= len(data)
        chunks = dict(_riff_chunks(data))
        exif = chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0")
        return ImageHeader(None, "" if is_whole else "cut off", _orientation(exif), b"ANIM" in chunks)
    if data.startswith(b"BM"):
        return ImageHeader(_bmp_size(data), "")
    if data.startswith((b"II*\0", b"MM\0*")):
        tags, has_more = _tiff_tags(data)
        known = _TIFF_WIDTH in tags and _TIFF_HEIGHT in tags
        return ImageHeader((tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT]) if known else None, "", has_more=has_more)
    if data.startswith((b"P5", b"P6")):
        return _netpbm_header(data)
    if (at := data.find(b"ihdr", 0, _BOXES)) > 0:  # JPEG 2000
        height_width = _pair(data, at + 4, 4, "big")
        return ImageHeader(None if height_width is None else height_width[::-1], "")
    if (at := data.find(b"ispe", 0, _BOXES)) > 0:  # AVIF
        return ImageHeader(_pair(data, at + 8, 4, "big"), "", has_more=data[8:12] == b"avis")
    return ImageHeader(None, "")


def _netpbm_header(data: bytes) -> ImageHeader:
    found = _NETPBM.match(data)
    if found is None:
        return ImageHeader(None, "damaged: its header is wrong")
    width, height, largest = (int(number) for number in found.groups())
    size = width * height * (3 if data.startswith(b"P6") else 1) * (2 if largest > _BYTE else 1)
    return ImageHeader((width, height), "" if len(data) >= found.end() + size else "cut off")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of the chunks besides the picture itself."""
    position = len(_PNG_SIGNATURE)
    while (start := position + 8) <= len(data):
        end = start + int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : start]
        if kind in (b"eXIf", b"acTL"):
            yield kind, data[start:end]
        position = end + 4


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 12
    while (start := position + 8) <= len(data):
        size = int.from_bytes(data[position + 4 : start], "little")
        yield data[position : position + 4], data[start : start + size] if size < _SMALL_CHUNK else b""
        position = start + size + size % 2


def _orientation(exif: bytes) -> int:
    if not exif.startswith((b"II*\0", b"MM\0*")):
        return 1
    found = _tiff_tags(exif)[0].get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def _png_damage(data: bytes) -> str:
    """Check the checksums of the chunks that are needed for the picture."""
    view = memoryview(data)
    position = len(_PNG_SIGNATURE)
    while (start := position + 8) <= len(data):
        end = start + int.from_bytes(view[position : position + 4], "big")
        kind = data[position + 4 : start]
        is_needed = not kind[0] & 0x20
        if is_needed and end + 4 <= len(data):
            checksum = int.from_bytes(view[end : end + 4], "big")
            if zlib.crc32(view[position + 4 : end]) != checksum:
                return "damaged: a checksum is wrong"
            if kind == b"IEND":
                return ""
        position = end + 4
    return "cut off"


def _jpeg_header(data: bytes) -> ImageHeader:
    size_wh, scan = None, len(data)
    for marker, position in _jpeg_segments(data):
        scan = position
        if marker in _JPEG_FRAMES:
            height_width = _pair(data, position + 5, 2, "big")
            size_wh = None if height_width is None else height_width[::-1]
    # Search after the headers, which may hold a thumbnail with its own end mark.
    return ImageHeader(size_wh, "" if data.find(_JPEG_END, scan) >= 0 else "cut off")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and position of each header and of the first scan, where the picture begins."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        yield marker, position
        if marker == _JPEG_SCAN:
            return
        # A marker may be preceded by any number of fill bytes.
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def _bmp_size(data: bytes) -> tuple[int, int] | None:
    if data[14:18] == b"\x0c\0\0\0":  # the oldest kind of header
        return _pair(data, 18, 2, "little")
    size_wh = _pair(data, 18, 4, "little")
    if size_wh is None:
        return None
    width, height = size_wh
    return width, min(height, (1 << 32) - height)  # negative where rows run downwards


def _tiff_tags(data: bytes) -> tuple[dict[int, int], bool]:
    """Numeric tags of the first directory, and whether another directory follows."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    start = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[start : start + 2], order)
    found = {}
    for entry in range(count):
        at = start + 2 + 12 * entry
        if at + 12 > len(data):
            break
        tag, kind = (int.from_bytes(data[at + k : at + k + 2], order) for k in (0, 2))
        found[tag] = int.from_bytes(data[at + 8 : at + (10 if kind == _TIFF_SHORT else 12)], order)
    end = start + 2 + 12 * count
    return found, any(data[end : end + 4])


def _pair(data: bytes, start: int, width: int, order: Literal["little", "big"]) -> tuple[int, int] | None:
    """Two unsigned numbers of ``width`` bytes each; None at the end of the data."""
    middle, end = start + width, start + 2 * width
    if end > len(data):
        return None
    return int.from_bytes(data[start:middle], order), int.from_bytes(data[middle:end], order)
