"""Colours of public data sets' classes, in the order of `CLASS_NAMES`, and colours for any names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from tfcseg.errors import DataError, UsageError
from tfcseg.files import read_json_object
from tfcseg.labels.label_sets import CLASS_NAMES, DATA, LabelSet, distinct_palette

Palette: TypeAlias = tuple[tuple[int, int, int], ...]

CLASS_COLOURS: Mapping[str, Palette] = {
    known_as: tuple((rgb[0], rgb[1], rgb[2]) for rgb in map(bytes.fromhex, colours))
    for known_as, colours in json.loads((DATA / "class_colours.json").read_bytes()).items()
}
"""Of the scene parsing benchmark (``ade150``), where road and skyscraper share a colour, and of Cityscapes."""


def palette_for(names: Sequence[str]) -> Palette:
    """RGB colours of classes by their ``names``: Cityscapes' or ADE20K's if all of them are its, else distinct ones."""
    folded = [name.casefold() for name in names]
    for known_as, colours in CLASS_COLOURS.items():
        table = {name.casefold(): colour for name, colour in zip(CLASS_NAMES[known_as], colours, strict=True)}
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
            raise DataError(f'{path}: {value!r} is not a colour for {name!r}; give one such as "#ff2a48"')
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
        raise DataError(f"{path}: is not UTF-8 text") from None
    if not rows or rows[0].strip() != _GIMP_HEAD:
        raise DataError(f"{path}: is not a GIMP palette: its first line should be {_GIMP_HEAD!r}")
    colours: dict[str, tuple[int, int, int]] = {}
    for number, row in enumerate(rows[1:], 2):
        if not row.strip() or row.startswith("#") or (re.match(r"[A-Za-z]+:", row) and not colours):
            continue
        match = _GIMP_ROW.fullmatch(row)
        red, green, blue = (int(part) for part in match.groups()[:3]) if match else (256, 0, 0)
        if match is None or max(red, green, blue) > 255:
            raise DataError(f"{path}: line {number} is not a colour with a name, such as '255 42 72 person'")
        name = match[4]
        if name in colours:
            raise DataError(f"{path}: {name!r} is given twice")
        if name != _GIMP_UNNAMED:
            colours[name] = (red, green, blue)
    return colours
