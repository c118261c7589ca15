"""Label maps: from a model's classes to those of a data set, built in or from a file.

A label map goes from model class to data set class. Several model classes may map to one; a model class without a
counterpart is left out and never counts as right in that data set.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path

from tfcseg.errors import DataError
from tfcseg.files import read_json_object
from tfcseg.labels.label_sets import CLASS_NAMES, DATA, SCENES, LabelSet

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

    Equal names map to themselves. A data set with a part of VSPW's or COCO's classes gets a part of their map. Raises
    DataError, saying how to give a label map, if there is none.
    """
    if set(model.names) == set(dataset.names):
        return {name: name for name in model.names}
    for (source, target), label_map in built_in_maps().items():
        if _is_called(model, source) and _is_called(dataset, target):
            kept = {
                name: counterpart
                for name, counterpart in label_map.items()
                if name in model.names and counterpart in dataset.names
            }
            if kept:
                return kept
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
