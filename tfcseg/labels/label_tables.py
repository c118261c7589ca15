"""Built-in tables: the data set's class for each class of a model (data/<model>_to_<data set>.csv).

Every class of the model has its row, whose second cell is empty if it has no counterpart. Classes of a data set that no
model tells apart are merged before anything is scored (data/merged.json).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from functools import cache
from itertools import product
from typing import TypeAlias

from tfcseg.labels.label_names import CLASS_NAMES, DATA
from tfcseg.labels.label_sets import SCENES

Table: TypeAlias = Mapping[str, "str | None"]
"""Model class -> data set class, None for a class without counterpart."""

KNOWN_NAMES: Mapping[str, tuple[str, ...]] = {"scenes": SCENES.names, **CLASS_NAMES}


@cache
def tables() -> Mapping[tuple[str, str], Table]:
    """From a model's label set to a data set's, in the order of ``KNOWN_NAMES``: of several that fit, the first one."""
    found: dict[tuple[str, str], Table] = {}
    for source, target in product(KNOWN_NAMES, repeat=2):
        path = DATA / f"{source}_to_{target}.csv"
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                found[source, target] = {name: counterpart or None for name, counterpart in list(csv.reader(file))[1:]}
    return found


@cache
def merged_names() -> Mapping[str, Mapping[str, str]]:
    """Classes of a data set that are finer than any of our label sets -> the class of it that they are scored as."""
    content: Mapping[str, Mapping[str, str]] = json.loads((DATA / "merged.json").read_bytes())
    return content
