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

VSPW, CITYSCAPES19, VOC21, ADE150, COCO133, MSRC23, FACADES8 = (
    CLASS_NAMES[name] for name in ("vspw", "cityscapes19", "voc21", "ade150", "coco133", "msrc23", "facades8")
)
"""VSPW: index + 1 is the raw mask value. Cityscapes by train id. Pascal VOC with the background first. ADE20K's scene
parsing benchmark. COCO's panoptic categories in the order of their ids, which have gaps. MSRC v2 by its usual ids,
from 1. LabelMe facades."""
