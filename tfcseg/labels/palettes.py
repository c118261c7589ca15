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


_HEX = re.compile(r"#?([0-9a-fA-F]{6})")


def read_palette(path: Path, labels: LabelSet) -> LabelSet:
    """``labels`` in the colours of a JSON file, ``{"person": "#ff2a48", …}``; other classes keep theirs.

    UsageError if it cannot be read, or names a class that there is not, a class twice, or no colour.
    """
    try:
        colours = {labels.index(name): _colour(name, value) for name, value in read_json_object(path).items()}
    except DataError as error:
        raise UsageError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    return replace(labels, palette=tuple(colours.get(index, own) for index, own in enumerate(labels.palette)))


def _colour(name: str, value: object) -> tuple[int, int, int]:
    match = _HEX.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise DataError(f'{value!r} is not a colour for {name!r}; give one such as "#ff2a48"')
    red, green, blue = bytes.fromhex(match[1])
    return red, green, blue
