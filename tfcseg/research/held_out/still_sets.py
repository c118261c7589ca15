"""Read sets of labelled stills.

::

    SET/  images/<name>.jpg   masks/<name>.png (value = id)   classes.json here or in the folder above: {id: name}

Ids 0 and 255 are void, whatever their names. Shapes: H W image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tfcseg.errors import DataError
from tfcseg.labels.label_sets import NO_CLASS, LabelSet, distinct_palette, merged_classes
from tfcseg.media.frames import Image
from tfcseg.media.images import read_image
from tfcseg.media.masks import read_mask
from tfcseg.media.source import IMAGE_SUFFIXES
from tfcseg.metrics.scores import Labels
from tfcseg.training.truth import CLASSES, find_classes, read_classes

_VOID_IDS = (0, 255)
_UNNAMED = 254
"""Marks values that classes.json does not name; sets have fewer classes than this."""


class Still(NamedTuple):
    """An image and its mask."""

    image: Path
    mask: Path


@dataclass(frozen=True, slots=True, eq=False)
class StillSet:
    """A folder of labelled stills, some of whose classes are merged for scoring (``merged_classes``)."""

    name: str
    """Names of the folder and the one above: ``coco/test``."""
    labels: LabelSet
    """Classes in the order of their ids, including merged ones."""
    merged: Labels
    """(256,) class index -> class index for scoring; NO_CLASS stays."""
    values: Labels
    """(256,) value of a mask -> class index for scoring."""
    stills: tuple[Still, ...]

    def read(self, still: Still) -> tuple[Image, Labels]:
        """Read (H, W, 3) image and (H', W') target, NO_CLASS = void; DataError for a value without a name."""
        raw = read_mask(still.mask)
        target = np.asarray(cv2.LUT(raw, self.values), dtype=np.uint8)
        is_unnamed = target == _UNNAMED
        if is_unnamed.any():
            raise DataError(f"{still.mask}: value {raw[is_unnamed].min()} is not named in {CLASSES}")
        return read_image(still.image), target


def open_stills(folder: str | Path) -> StillSet:
    """List the stills of a folder; DataError says what is missing."""
    folder = Path(folder)
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise DataError(f"{folder}: has no folder {part}; labelled stills have images/, masks/ and {CLASSES}")
    file = find_classes(folder)
    if file is None:
        raise DataError(f"{folder}: has no {CLASSES}, also not above; it names the masks' values, {{id: name}}")
    ids = _ids_by_name(file)
    path = folder.resolve()
    name = f"{path.parent.name}/{path.name}".lstrip("/")
    labels = LabelSet(name, tuple(ids), distinct_palette(len(ids)))
    stands_for = merged_classes(labels)
    scored_as = [labels.index(stands_for.get(own, own)) for own in labels.names]
    merged = np.full(256, NO_CLASS, np.uint8)
    merged[: len(ids)] = scored_as
    values = np.full(256, _UNNAMED, np.uint8)
    values[list(ids.values())] = scored_as
    values[list(_VOID_IDS)] = NO_CLASS
    return StillSet(name, labels, merged, values, _list_stills(folder))


def _ids_by_name(file: Path) -> Mapping[str, int]:
    """Read {name: id} in the order of ids, without void."""
    ids = read_classes(file)
    named = {name: number for number, name in sorted(ids.items()) if number not in _VOID_IDS}
    if not 0 < len(named) < _UNNAMED:
        raise DataError(f"{file}: names {len(named)} classes besides void; give 1 to {_UNNAMED - 1}")
    if len(named) < len(set(ids) - set(_VOID_IDS)):
        raise DataError(f"{file}: names a class twice")
    return named


def _list_stills(folder: Path) -> tuple[Still, ...]:
    entries = sorted((folder / "images").iterdir())
    found = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]
    stills = tuple(Still(path, folder / "masks" / f"{path.stem}.png") for path in found)
    if not stills:
        raise DataError(f"{folder / 'images'}: has no images")
    lacking = [still.mask for still in stills if not still.mask.is_file()]
    if lacking:
        raise DataError(f"{lacking[0]}: no such mask ({len(lacking)} of {len(stills)} images have none)")
    return stills
