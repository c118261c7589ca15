"""Class names of public data sets, label sets (names and palette), and label maps between them.

A label map goes from model class to data set class. Several model classes may map to one; a model class without a
counterpart is left out and never counts as right in that data set.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
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
        """Class index of ``name``, in any case; DataError names the closest class if there is none."""
        found = find_name(name, self.names)
        if found is None:
            raise DataError(f"no class {name!r} in label set {self.name!r}; {hint(name, self.names)}")
        return self.names.index(found)

    def indices(self, names: str | Iterable[str]) -> list[int]:
        """Class indices of ``names``, each a class or a list with commas; DataError as in `index`."""
        found = []
        for text in [names] if isinstance(names, str) or not isinstance(names, Iterable) else names:
            if not isinstance(text, str):
                raise DataError(f"{text!r} is no name of a class; give texts")
            # Data sets have classes with commas in their names: what is a class as it stands is not split.
            words = [] if find_name(text, self.names) else words_of(text)
            found += [self.index(word) for word in words or [text]]
        return found

    def palette_array(self) -> NDArray[np.uint8]:
        """Palette as (K, 3) uint8 RGB."""
        return np.array(self.palette, dtype=np.uint8)


def distinct_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """``count`` distinguishable RGB colours: the bit-reversal palette of Pascal VOC, without its black."""
    labels = np.arange(1, count + 1)[:, None, None]
    bits = np.arange(8)
    is_set = labels >> (3 * bits + np.arange(3)[:, None]) & 1  # (count, 3 channels, 8 bits)
    return tuple((red, green, blue) for red, green, blue in (is_set << 7 - bits).sum(axis=-1).tolist())


def named_classes(name: str, names: Mapping[int, str], colours: Mapping[int, tuple[int, int, int]]) -> LabelSet:
    """The label set ``name`` of a classes.json. Values between its classes are called by their numbers; `NO_CLASS` is
    none."""
    count = max((index for index in names if index < NO_CLASS), default=0) + 1
    palette = enumerate(distinct_palette(count))
    return LabelSet(
        name,
        tuple(names.get(index, f"{index}") for index in range(count)),
        tuple(colours.get(index, colour) for index, colour in palette),
    )


def name_table(source: LabelSet, target: LabelSet, pairs: Mapping[str, str]) -> NDArray[np.int64]:
    """(K_source,) table: target index of each source class, -1 where ``pairs`` names no counterpart.

    Several source classes may map to one target class. Unknown names raise DataError.
    """
    table = np.full(len(source), -1, dtype=np.int64)
    for source_name, target_name in pairs.items():
        table[source.index(source_name)] = target.index(target_name)
    return table


_SCENE_COLOURS: dict[str, tuple[int, int, int]] = {
    name: (red, green, blue) for name, (red, green, blue) in json.loads((DATA / "scenes.json").read_bytes()).items()
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


def read_palette(given: str | Path | Mapping[str, str], labels: LabelSet) -> LabelSet:
    """``labels`` in the colours of a JSON file or a mapping, ``{"person": "#ff2a48", …}``; other classes keep theirs.

    UsageError if it cannot be read, or names a class that there is not, a class twice, or no colour.
    """
    if not isinstance(given, str | Path | Mapping):
        raise UsageError(f"palette is {given!r}; give a JSON file, or a dict of classes and colours")
    where = "palette" if isinstance(given, Mapping) else str(given)
    try:
        content = given if isinstance(given, Mapping) else read_json_object(Path(given))
        colours = {labels.index(str(name)): _colour(name, value) for name, value in content.items()}
    except DataError as error:
        raise UsageError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    return replace(labels, palette=tuple(colours.get(index, own) for index, own in enumerate(labels.palette)))


def _colour(name: str, value: object) -> tuple[int, int, int]:
    match = _HEX.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise DataError(f'{value!r} is not a colour for {name!r}; give one such as "#ff2a48"')
    red, green, blue = bytes.fromhex(match[1])
    return red, green, blue


LabelMap = Mapping[str, str]

_MAY_BE_PARTS = ("scenes", "vspw", "coco133")  # sets of which many models and folders have only a part

KNOWN_NAMES: Mapping[str, tuple[str, ...]] = {"scenes": SCENES.names, **CLASS_NAMES}


@cache
def built_in_maps() -> Mapping[tuple[str, str], LabelMap]:
    """Label maps from a model's label set to a data set's (data/<model>_to_<data set>.csv), by keys of ``KNOWN_NAMES``.

    They have all classes of the model; the counterpart of some is empty. Of several maps that fit, the first one is
    meant.
    """
    found: dict[tuple[str, str], LabelMap] = {}
    for source, target in product(KNOWN_NAMES, repeat=2):
        path = DATA / f"{source}_to_{target}.csv"
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                found[source, target] = {row[0]: row[1] for row in list(csv.reader(file))[1:]}
    return found


@cache
def merged_names() -> Mapping[str, LabelMap]:
    """Classes of a data set that are finer than any of our label sets -> the class of it that they are scored as."""
    content: Mapping[str, LabelMap] = json.loads((DATA / "merged.json").read_bytes())
    return content


def built_in_label_map(model: LabelSet, dataset: LabelSet) -> LabelMap:
    """Find the label map between two label sets, which are recognised by their class names, not by their own names.

    A data set with a part of VSPW's or COCO's classes gets a part of their map. If one set has all names of the other,
    equal names map to themselves. Raises DataError, saying how to give a label map, if there is none.
    """
    shared = {name: name for name in model.names if name in dataset.names}
    if len(shared) == len(model) == len(dataset):
        return shared
    for (source, target), label_map in built_in_maps().items():
        if _is_called(model, source) and _is_called(dataset, target):
            kept = {
                name: counterpart
                for name, counterpart in label_map.items()
                if name in model.names and counterpart in dataset.names
            }
            if kept:
                return kept
    if len(shared) in (len(model), len(dataset)):
        return shared
    raise DataError(
        f"no built-in label map from label set {model.name!r} to {dataset.name!r}; write one as JSON,"
        " {model class: data set class, …}, and give it with --label-map"
    )


def merged_classes(dataset: LabelSet) -> LabelMap:
    """Map classes of a data set that none of our label sets distinguishes to one class that represents them.

    Empty for data sets that are not among ``KNOWN_NAMES``.
    """
    for target, merged in merged_names().items():
        if _is_called(dataset, target):
            return {name: kept for name, kept in merged.items() if {name, kept} <= set(dataset.names)}
    return {}


def _is_called(labels: LabelSet, known_as: str) -> bool:
    """Whether the class names of ``labels`` are those of a set that we know, or a part of many."""
    names, known = set(labels.names), set(KNOWN_NAMES[known_as])
    return names == known or (known_as in _MAY_BE_PARTS and names <= known)


def read_label_map(path: str | Path, model: LabelSet, dataset: LabelSet) -> LabelMap:
    """Read ``{"model class": "data set class", …}``; a model class with null, or left out, has no counterpart.

    DataError names the file and the first name that is not a class of its label set.
    """
    path = Path(path)
    label_map: dict[str, str] = {}
    for name, counterpart in read_json_object(path).items():
        if counterpart is not None and not isinstance(counterpart, str):
            raise DataError(f"{path}: {name!r} maps to {counterpart!r}; give the name of a data set class, or null")
        try:
            model.index(name)
            if counterpart is not None:
                dataset.index(counterpart)
                label_map[name] = counterpart
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    if not label_map:
        raise DataError(f"{path}: maps no classes; expected {{model class: data set class, …}}")
    return label_map
