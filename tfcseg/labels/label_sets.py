"""Label sets (names and palette) and explicit tables between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.spelling import find_name, hint

NO_CLASS = 255
"""Label value that means "none of the classes" in 8-bit maps; targets use it as ``ignore_index``."""


@dataclass(frozen=True, slots=True, repr=False)
class LabelSet:
    """What a model or a data set calls its classes: ``names[i]`` is class ``i``, drawn in ``palette[i]`` (RGB)."""

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
        """Class index of ``name``, whose case does not matter; DataError names the closest classes if there is none."""
        found = find_name(name, self.names)
        if found is None:
            raise DataError(f"no class {name!r} in label set {self.name!r}; {hint(name, self.names)}")
        return self.names.index(found)

    def indices(self, names: str | Iterable[str]) -> list[int]:
        """Class indices of ``names``, each a class or a list with commas; DataError as in `index`."""
        found = []
        for text in [names] if isinstance(names, str) else names:
            # Data sets have classes with commas in their names: what is a class as it stands is not split.
            words = [] if find_name(text, self.names) else [word for word in text.split(",") if word.strip()]
            found += [self.index(word.strip()) for word in words or [text]]
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


# Colours follow the scene: blues for sky and water, greens for plants, warm and saturated for what moves.
_ADE31_COLOURS: dict[str, tuple[int, int, int]] = {
    "other": (90, 90, 98),
    "wall": (178, 168, 150),
    "building": (196, 122, 88),
    "sky": (112, 188, 255),
    "floor": (146, 108, 74),
    "tree": (36, 140, 60),
    "ceiling": (222, 214, 196),
    "road": (110, 92, 140),
    "bed": (232, 128, 180),
    "windowpane": (150, 226, 232),
    "grass": (132, 214, 66),
    "cabinet": (168, 76, 36),
    "sidewalk": (236, 150, 230),
    "person": (255, 42, 72),
    "earth": (160, 130, 60),
    "door": (118, 60, 60),
    "table": (214, 150, 20),
    "mountain": (92, 116, 112),
    "plant": (0, 184, 128),
    "curtain": (190, 80, 160),
    "chair": (255, 178, 0),
    "car": (30, 80, 255),
    "water": (0, 122, 190),
    "painting": (255, 110, 200),
    "sofa": (140, 60, 220),
    "shelf": (200, 100, 70),
    "house": (220, 92, 50),
    "sea": (0, 70, 160),
    "mirror": (170, 240, 200),
    "rug": (200, 40, 110),
    "field": (190, 200, 50),
    "armchair": (255, 140, 60),
}

ADE31 = LabelSet("ade31", tuple(_ADE31_COLOURS), tuple(_ADE31_COLOURS.values()))
"""ADE20K's 31 most frequent classes in the official order, after ``other`` = 0."""

_THING_COLOURS: dict[str, tuple[int, int, int]] = {
    "dog": (255, 200, 120),
    "cat": (255, 224, 84),
    "horse": (176, 96, 0),
    "cow": (240, 240, 160),
    "sheep": (250, 236, 220),
    "bird": (120, 255, 220),
    "bus": (120, 40, 255),
    "bicycle": (0, 230, 60),
    "motorcycle": (0, 150, 40),
    "boat": (255, 90, 0),
    "train": (86, 0, 190),
    "airplane": (180, 190, 255),
    "bottle": (60, 255, 140),
    "television": (40, 30, 110),
}

SCENES = LabelSet("scenes", (*ADE31.names, *_THING_COLOURS), (*ADE31.palette, *_THING_COLOURS.values()))
"""ADE31 and what Pascal VOC adds to it: animals, vehicles and things. What both know is one class, by ADE31's name."""
