"""Colours that public data sets give to their classes, in the order of `label_names`, and what suits any names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from tfcseg.errors import DataError, UsageError
from tfcseg.files import read_json_object
from tfcseg.labels.label_names import ADE150, CITYSCAPES19
from tfcseg.labels.label_sets import LabelSet, distinct_palette

Palette: TypeAlias = tuple[tuple[int, int, int], ...]


def _colours(text: str) -> Palette:
    return tuple((rgb[0], rgb[1], rgb[2]) for rgb in map(bytes.fromhex, text.split()))


ADE150_COLOURS = _colours("""
    787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33
    ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff
    08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff
    eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff
    0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad
    0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2
    00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa
    8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3
    ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff
    00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
""")
"""Of the scene parsing benchmark, where road and skyscraper share a colour."""

CITYSCAPES19_COLOURS = _colours("""
    804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046
    003c64 005064 0000e6 770b20
""")


def palette_for(names: Sequence[str]) -> Palette:
    """RGB colours of classes by their ``names``: Cityscapes' or ADE20K's if all of them are its, else distinct ones."""
    folded = [name.casefold() for name in names]
    for known, colours in ((CITYSCAPES19, CITYSCAPES19_COLOURS), (ADE150, ADE150_COLOURS)):
        table = {name.casefold(): colour for name, colour in zip(known, colours, strict=True)}
        if table.keys() >= set(folded):
            return tuple(table[name] for name in folded)
    return distinct_palette(len(names))


_GIMP_HEAD = "GIMP Palette"
_GIMP_ROW = re.compile(r"\s*(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*?)\s*")
_GIMP_UNNAMED = "Untitled"
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")


def read_palette(path: Path, labels: LabelSet) -> LabelSet:
    """``labels`` in the colours of a file; classes that it does not name keep theirs.

    The file is JSON, ``{"person": "#ff2a48", …}``, or a GIMP palette (.gpl) whose colours are called like classes.
    UsageError if it cannot be read, or names a class that there is not, a class twice, or no colour.
    """
    try:
        colours = _read_gimp(path) if path.suffix.lower() == ".gpl" else _read_json(path)
        palette = dict(enumerate(labels.palette))
        for name, colour in colours.items():
            palette[labels.index(name)] = colour
    except DataError as error:
        raise UsageError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    return replace(labels, palette=tuple(palette.values()))


def _read_json(path: Path) -> Mapping[str, tuple[int, int, int]]:
    colours = {}
    for name, value in read_json_object(path).items():
        match = _HEX.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise DataError(f'{path}: {value!r} is no colour of {name!r}; give one such as "#ff2a48"')
        red, green, blue = bytes.fromhex(match[1])
        colours[name] = (red, green, blue)
    return colours


def _read_gimp(path: Path) -> Mapping[str, tuple[int, int, int]]:
    """Rows are ``red green blue name``, after a head, settings (``Name: …``) and comments (``# …``)."""
    try:
        rows = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise DataError(f"{path}: is no text in UTF-8") from None
    if not rows or rows[0].strip() != _GIMP_HEAD:
        raise DataError(f"{path}: is no GIMP palette, whose first line is {_GIMP_HEAD!r}")
    colours: dict[str, tuple[int, int, int]] = {}
    for number, row in enumerate(rows[1:], 2):
        if not row.strip() or row.startswith("#") or (re.match(r"[A-Za-z]+:", row) and not colours):
            continue
        match = _GIMP_ROW.fullmatch(row)
        red, green, blue = (int(part) for part in match.groups()[:3]) if match else (256, 0, 0)
        if match is None or max(red, green, blue) > 255:
            raise DataError(f"{path}: line {number} is no colour with a name, such as '255 42 72 person'")
        name = match[4]
        if name in colours:
            raise DataError(f"{path}: {name!r} is given twice")
        if name != _GIMP_UNNAMED:
            colours[name] = (red, green, blue)
    return colours
