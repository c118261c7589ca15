"""Masks drawn by people, stored beside their images, and their classes in SCENES.

Layout: ``<set>/<part>/images/<name>.jpg``, ``<set>/<part>/masks/<name>.png`` (value = class id, 0 = not labelled) and
``classes.json`` ({id: name}) in ``<part>`` or ``<set>``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.files import read_json_object
from tfcseg.labels.label_sets import DATA, SCENES

VOC_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "table",
    "motorbike": "motorcycle",
    "pottedplant": "plant",
    "tvmonitor": "television",
}
"""SCENES' names of VOC's classes; all others have the same name, and background has none."""

MASKS, IMAGES, CLASSES = "masks", "images", "classes.json"

MEANINGS: Mapping[str, tuple[str, ...]] = {
    name: tuple(ours.split(", "))
    for names, ours in json.loads((DATA / "mask_meanings.json").read_bytes()).items()
    for name in names.split(", ")
}
"""Classes of SCENES that a name in ``classes.json`` may stand for, the likeliest first.

In a street, doors and windows may be labelled as part of a building. Things outside of ADE20K's 31 are "other".
"""

PAVED = ("road", "sidewalk", "floor")
"""Meanings of "road" in a data set without pavement, which uses it for all paved ground."""


class Truth(NamedTuple):
    """A mask drawn by people, and the file that names its values."""

    mask: Path
    classes: Path


class Meanings(NamedTuple):
    """Classes that each value of a mask may stand for, ``allowed`` (256, S), and the likeliest, ``main`` (256,)."""

    allowed: NDArray[np.bool_]
    main: NDArray[np.intp]


def truth_of(image: Path) -> Truth | None:
    """Find the mask of an image; None if it has none."""
    if image.parent.name != IMAGES:
        return None
    mask, classes = image.parent.parent / MASKS / f"{image.stem}.png", find_classes(image.parent.parent)
    return Truth(mask, classes) if classes is not None and mask.is_file() else None


def is_mask(image: Path) -> bool:
    """Whether an image file is a mask."""
    return image.parent.name == MASKS and (image.parent.parent / IMAGES).is_dir()


def find_classes(part: Path) -> Path | None:
    """Find the classes.json of a folder of images and masks: there, or in the folder above."""
    folders = (part, part.resolve().parent)
    return next((folder / CLASSES for folder in folders if (folder / CLASSES).is_file()), None)


def read_classes(file: Path) -> dict[int, str]:
    """Read the names in a classes.json by id; DataError for anything else."""
    names: dict[int, str] = {}
    for number, name in read_json_object(file).items():
        if not (number.isascii() and number.isdigit() and int(number) < 256 and isinstance(name, str)):
            raise DataError(f"{file}: {number!r}: {name!r} is not a class id from 0 to 255 with a name")
        names[int(number)] = name
    return names


@cache
def read_meanings(file: Path) -> Meanings:
    """Read the meanings of the values in a classes.json: from the table, or classes of SCENES or VOC of the same names.

    Raises DataError for anything else.
    """
    meanings = Meanings(np.zeros((256, len(SCENES)), np.bool_), np.zeros(256, np.intp))
    names = read_classes(file)
    knows_pavement = any("pavement" in name for name in names.values())
    for number, name in names.items():
        own = VOC_NAMES.get(name, name)
        meant = MEANINGS.get(name, (own,) if own in SCENES.names else ())
        ours = [SCENES.index(each) for each in (PAVED if name == "road" and not knows_pavement else meant)]
        meanings.allowed[number, ours] = True
        meanings.main[number] = next(iter(ours), 0)
    return meanings
