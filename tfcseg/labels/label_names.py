"""Class names of public data sets, in the order of their indices (data/class_names.json)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

DATA = Path(__file__).with_name("data")
"""Tables of names and colours."""

CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    known_as: tuple(names) for known_as, names in json.loads((DATA / "class_names.json").read_bytes()).items()
}

VSPW = CLASS_NAMES["vspw"]
"""VSPW's 124 classes; a raw mask value is the index + 1."""

CITYSCAPES19 = CLASS_NAMES["cityscapes19"]
"""Cityscapes' 19 classes by train id."""

VOC21 = CLASS_NAMES["voc21"]
"""Pascal VOC's 20 classes and background."""

ADE150 = CLASS_NAMES["ade150"]
"""ADE20K's 150 classes of the scene parsing benchmark, by their usual short names."""

COCO133 = CLASS_NAMES["coco133"]
"""COCO's 133 panoptic categories, 80 things and 53 kinds of stuff, in the order of their ids (which have gaps)."""

MSRC23 = CLASS_NAMES["msrc23"]
"""MSRC v2's 23 classes by their usual ids, from 1."""

FACADES8 = CLASS_NAMES["facades8"]
"""The 8 classes of the LabelMe facades."""
