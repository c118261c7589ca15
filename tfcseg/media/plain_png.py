"""PNGs of labels, read and written in half of Pillow's time: gray or palette, 8 or 16 bits, rows filtered all alike.

Pillow reads and writes all other ones. Shapes: H W image.
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE = 0, 3
_UNFILTERED, _UP = 0, 2


class PlainPng(NamedTuple):
    """What such a PNG holds."""

    values: NDArray[np.uint8] | NDArray[np.uint16]
    """(H, W)."""
    palette: bytes | None
    """RGB of the values, as many as there are; None: gray."""


def unpack_png(content: bytes) -> PlainPng | None:
    """What the file ``content`` holds; None for other PNGs, and for damaged ones."""
    parts = _parts(content)
    if parts is None or b"tRNS" in parts or len(parts.get(b"IHDR", b"")) != 13:
        return None
    width, height, bits, kind, *_, interlace = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    palette = parts.get(b"PLTE")
    is_usual = (bits, kind) in ((8, _GRAY), (16, _GRAY), (8, _PALETTE)) and (palette is not None) == (kind == _PALETTE)
    if not is_usual or interlace or height * width > (PIL.Image.MAX_IMAGE_PIXELS or 0):
        return None
    row_bytes = 1 + width * bits // 8  # a row begins with the number of its filter
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(parts.get(b"IDAT", b""), height * row_bytes + 1)
    except zlib.error:
        return None
    if not stream.eof or len(unpacked) != height * row_bytes:
        return None
    rows = np.frombuffer(unpacked, np.uint8).reshape(height, row_bytes)
    how = int(rows[0, 0])
    if how not in (_UNFILTERED, _UP) or (rows[:, 0] != how).any():
        return None
    data = np.ascontiguousarray(rows[:, 1:])
    if how == _UP:  # differences to the row above
        for above, row in pairwise(data):
            row += above
    return PlainPng(data if bits == 8 else data.view(">u2").astype(np.uint16), palette)


def pack_png(png: PlainPng, note: bytes) -> bytes:
    """The file that holds ``png``, and a text ``note``: keyword, zero byte, text."""
    values: Any = png.values
    height, width = values.shape
    data = values if values.dtype == np.uint8 else values.astype(">u2").view(np.uint8)
    rows = np.empty((height, 1 + data.shape[1]), np.uint8)
    if values.dtype == np.uint8:
        rows[:, 0], rows[:, 1:] = _UNFILTERED, data
    else:  # as differences, runs of values are runs of bytes, too
        rows[:, 0], rows[0, 1:] = _UP, data[0]
        np.subtract(data[1:], data[:-1], out=rows[1:, 1:])
    # Labels are runs: at 720p, Z_RLE gives 16 KB in 2 ms; plain level 1 gives 23 KB in 2 ms, level 6 16 KB in 6 ms.
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    kind = _GRAY if png.palette is None else _PALETTE
    header = struct.pack(">IIBB", width, height, 8 * values.dtype.itemsize, kind) + bytes(3)
    parts = [(b"IHDR", header), (b"tEXt", note)]
    parts += [] if png.palette is None else [(b"PLTE", png.palette)]
    parts += [(b"IDAT", packer.compress(rows.data) + packer.flush()), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(part, zlib.crc32(name)))
        for name, part in parts
    )


def _parts(content: bytes) -> dict[bytes, bytes] | None:
    """Parts of a PNG by name, those of one name joined; None if it is cut off."""
    parts: dict[bytes, bytes] = {}
    at = len(SIGNATURE)
    while b"IEND" not in parts:
        if at + 12 > len(content):
            return None
        size, name = struct.unpack_from(">I4s", content, at)
        part = content[at + 8 : at + 8 + size]
        parts[name] = parts[name] + part if name in parts else part
        at += size + 12
    return parts
