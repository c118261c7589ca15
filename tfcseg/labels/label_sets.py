"""Class names of public data sets, label sets (names and palette), and tables between them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, UsageError
from tfcseg.files import read_json_object
from tfcseg.spelling import find_name, hint, words_of

DATA = Path(__file__).with_name("data")
"""Tables of names and colours."""

CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    known_as: tuple(names) for known_as, names in json.loads((DATA / "class_names.json").read_bytes()).items()
}

VSPW, CITYSCAPES19, VOC21, ADE150, COCO133, MSRC23, FACADES8 = (
    CLASS_NAMES[name] for name in ("vspw", "cityscapes19", "voc21", "ade150", "coco133", "msrc23", "facades8")
)
"""VSPW: index + 1 is the raw mask value. Cityscapes by train id. Pascal VOC with the background first. ADE20K's scene
parsing benchmark. COCO's panoptic categories in the order of their ids, which have gaps. MSRC v2 by its usual ids,
from 1. LabelMe facades."""


NO_CLASS = 255
"""Label value for "none of the classes" in 8-bit labels; targets use it as ``ignore_index``."""


@dataclass(frozen=True, slots=True, repr=False)
class LabelSet:
    """Names and colours of classes: ``names[i]`` is class ``i``, drawn in ``palette[i]`` (RGB)."""

    name: str
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.names) <= NO_CLASS:
            raise DataError(f"label set {self.name!r} has {len(self.names)} classes; 1 to {NO_CLASS} are possible")
        if len(set(self.names)) != len(self.names):
            raise DataError(f"label set {self.name!r} names a class twice")
        if len(self.palette) != len(self.names):
            raise DataError(f"label set {self.name!r}: {len(self.names)} names but {len(self.palette)} colours")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:3]) + (", …" if len(self.names) > 3 else "")
        return f"<LabelSet {self.name}: {len(self.names)} classes ({shown})>"

    def index(self, name: str) -> int:
        """Class index of ``name``, in any case; DataError names the closest classes if there is none."""
        found = find_name(name, self.names)
        if found is None:
            raise DataError(f"no class {name!r} in label set {self.name!r}; {hint(name, self.names)}")
        return self.names.index(found)

    def indices(self, names: str | Iterable[str]) -> list[int]:
        """Class indices of ``names``, each a class or a list with commas; DataError as in `index`."""
        found = []
        for text in [names] if isinstance(names, str) else names:
            # Data sets have classes with commas in their names: what is a class as it stands is not split.
            words = [] if find_name(text, self.names) else words_of(text)
            found += [self.index(word) for word in words or [text]]
        return found

    def palette_array(self) -> NDArray[np.uint8]:
        """Palette as (K, 3) uint8 RGB."""
        return np.array(self.palette, dtype=np.uint8)


def distinct_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """``count`` distinguishable RGB colours: the bit-reversal palette of Pascal VOC, without its black."""
    colours = []
    for label in range(1, count + 1):
        channels = [0, 0, 0]
        rest, bit = label, 7
        while rest:
            for channel in range(3):
                channels[channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
            bit -= 1
        colours.append((channels[0], channels[1], channels[2]))
    return tuple(colours)


def name_table(
    source: LabelSet, target: LabelSet, pairs: Mapping[str, str] | Iterable[tuple[str, str]]
) -> NDArray[np.int64]:
    """(K_source,) table: target index of each source class, -1 where ``pairs`` names no counterpart.

    Several source classes may map to one target class. Unknown names raise DataError.
    """
    table = np.full(len(source), -1, dtype=np.int64)
    for source_name, target_name in dict(pairs).items():
        table[source.index(source_name)] = target.index(target_name)
    return table


_SCENE_COLOURS: dict[str, tuple[int, int, int]] = {
    name: (red, green, blue)
    for name, (red, green, blue) in json.loads((Path(__file__).parent / "data/scenes.json").read_bytes()).items()
}
"""The classes of scenes with their colours, which follow what they show: blues for sky and water, greens for plants,
red for people. The nearest two are ΔE 20.6 apart (CIE76, D65; 10 in CIEDE2000)."""


def _scenes(name: str, count: int) -> LabelSet:
    return LabelSet(name, tuple(_SCENE_COLOURS)[:count], tuple(_SCENE_COLOURS.values())[:count])


ADE31 = _scenes("ade31", 32)
"""ADE20K's 31 most frequent classes in the official order, after ``other`` = 0."""

SCENES = _scenes("scenes", 51)
"""ADE31, Pascal VOC's further classes (animals, vehicles and things) and Cityscapes' (things that stand in streets).

Classes that several of them have are one class here, by ADE31's name."""


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
