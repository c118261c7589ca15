"""Built-in tables: the data set's class for each class of a model.

A row that begins with None lists the model's classes that have no counterpart, so that each of them was thought of.
Classes of a data set that no model tells apart are merged before anything is scored (``MERGED``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from tfcseg.labels.label_names import ADE150, CITYSCAPES19, COCO133, FACADES8, MSRC23, VOC21, VSPW
from tfcseg.labels.label_sets import ADE31, SCENES

Table: TypeAlias = Mapping[str, "str | None"]
"""Model class -> data set class, None for a class without counterpart."""


def _from_sources(table: Mapping[str | None, str]) -> dict[str, str | None]:
    """Turn {data set class: "model class, model class"} into {model class: data set class}."""
    return {name: target for target, names in table.items() for name in names.split(", ")}


def _part(table: Table, names: Iterable[str]) -> dict[str, str | None]:
    """Rows of ``table`` for ``names``; None for those that it does not speak of."""
    return {name: table.get(name) for name in names}


_ADE150_TO_VSPW = _from_sources(
    {
        # surfaces and buildings
        "wall": "wall",
        "building": "building, skyscraper",
        "house": "house, hovel",
        "tower": "tower",
        "bridge": "bridge",
        "grandstand": "grandstand",
        "ceiling": "ceiling",
        "floor": "floor",
        "pillar": "column",
        "window": "windowpane",
        "door": "door, screen door",
        "stair": "stairs, stairway, step",
        "escalator": "escalator",
        "handrail_or_fence": "fence, railing, bannister",
        "pole": "pole",
        "tent": "tent",
        # ground, water, sky
        "sky": "sky",
        "road": "road, runway",
        "path": "sidewalk, path, dirt track",
        "ground": "earth, land",
        "grass": "grass, field",
        "sand": "sand",
        "stone": "rock",
        "mountain": "mountain, hill",
        "sea": "sea",
        "river": "river",
        "lake": "lake",
        "waterfall": "waterfall",
        "water": "water, swimming pool",
        # what lives and grows
        "person": "person",
        "other_animal": "animal",
        "tree": "tree, palm",
        "other_plant": "plant",
        "flower": "flower",
        # traffic
        "car": "car, van",
        "bus": "bus",
        "truck": "truck",
        "bicycle": "bicycle",
        "motorcycle": "minibike",
        "ship_or_boat": "boat, ship",
        "airplane": "airplane",
        "traffic_light": "traffic light",
        "billboard_or_Bulletin_Board": "signboard, trade name, bulletin board",
        # furniture
        "bed": "bed, cradle",
        "pillow": "pillow",
        "textiles": "blanket, towel",
        "curtain": "curtain, blind",
        "cushion_or_carpet": "cushion, rug",
        "table_or_desk": "table, desk, coffee table, pool table, counter, countertop, kitchen island",
        "chair_or_seat": "chair, armchair, swivel chair, seat, stool, ottoman",
        "bench": "bench",
        "sofa": "sofa",
        "cupboard_or_showcase_or_storage_rack": "cabinet, wardrobe, chest of drawers, buffet, case",
        "shelf": "shelf, bookcase",
        "mirror": "mirror",
        "painting_or_poster": "painting, poster",
        "lamp": "lamp, light, chandelier, sconce, streetlight",
        "clock": "clock",
        "flag": "flag",
        "sculpture": "sculpture",
        # kitchen, bath and machines
        "bathtub": "bathtub",
        "commode": "toilet",
        "tub_or_bowl_or_pot": "sink",
        "refrigerator": "refrigerator",
        "washing_machine": "washer",
        "Microwave_oven": "microwave",
        "roaster": "stove, oven",
        "other_machine": "dishwasher, arcade machine, conveyer belt",
        "fan": "fan",
        "computer": "computer",
        "screen_or_television": "monitor, screen, crt screen, television receiver",
        # small things
        "box": "box",
        "basket": "basket",
        "bag_or_package": "bag",
        "barrel": "barrel",
        "trash_can": "ashcan",
        "bottle_or_cup": "bottle, glass",
        "plate": "plate, tray",
        "flower_pot_or_vase": "pot, vase",  # ADE20K's "pot" is a flowerpot
        "book": "book",
        "ball": "ball",
        "toy": "plaything",
        "food": "food",
        "clothes": "apparel",
    }
)

_SCENES_TO_VSPW: Table = {
    **_part(_ADE150_TO_VSPW, ADE31.names),
    "dog": "dog",
    "cat": "cat",
    "horse": "horse",
    "cow": "cattle",
    "sheep": "other_animal",
    "bird": "other_animal",
    "bus": "bus",
    "bicycle": "bicycle",
    "motorcycle": "motorcycle",
    "boat": "ship_or_boat",
    "train": "train",
    "airplane": "airplane",
    "bottle": "bottle_or_cup",
    "television": "screen_or_television",
    "fence": "handrail_or_fence",
    "pole": "pole",
    "traffic light": "traffic_light",
    "traffic sign": None,  # VSPW has billboards, but no traffic signs
    "truck": "truck",
}

_SCENES_TO_ADE150: Table = {
    "other": None,
    **{name: name for name in ADE31.names[1:]},
    **dict.fromkeys(("dog", "cat", "horse", "cow", "sheep", "bird"), "animal"),
    "bus": "bus",
    "bicycle": "bicycle",
    "motorcycle": "minibike",
    "boat": "boat",
    "train": None,
    "airplane": "airplane",
    "bottle": "bottle",
    "television": "television receiver",
    "fence": "fence",
    "pole": "pole",
    "traffic light": "traffic light",
    "traffic sign": "signboard",
    "truck": "truck",
}

_SCENES_TO_CITYSCAPES19 = _from_sources(
    {
        "road": "road",
        "sidewalk": "sidewalk",
        "building": "building, house",
        "wall": "wall",
        "vegetation": "tree, plant",
        "terrain": "grass, earth, field",
        "sky": "sky",
        "person": "person",
        "car": "car",
        "bus": "bus",
        "train": "train",
        "motorcycle": "motorcycle",
        "bicycle": "bicycle",
        "fence": "fence",
        "pole": "pole",
        "traffic light": "traffic light",
        "traffic sign": "traffic sign",
        "truck": "truck",
        None: "other, floor, ceiling, bed, windowpane, cabinet, door, table, mountain, curtain, chair, water, "
        "painting, sofa, shelf, sea, mirror, rug, armchair, dog, cat, horse, cow, sheep, bird, boat, airplane, "
        "bottle, television",
    }
)

_SCENES_TO_VOC21: Table = {
    # whatever is not an object of VOC is its background
    **dict.fromkeys((*ADE31.names, "fence", "pole", "traffic light", "traffic sign", "truck"), "background"),
    "person": "person",
    "car": "car",
    "chair": "chair",
    "armchair": "chair",
    "sofa": "sofa",
    "table": "diningtable",
    "plant": "pottedplant",
    **{
        name: name
        for name in ("dog", "cat", "horse", "cow", "sheep", "bird", "bus", "bicycle", "boat", "train", "bottle")
    },
    "motorcycle": "motorbike",
    "airplane": "aeroplane",
    "television": "tvmonitor",
}

_SCENES_TO_COCO133 = _from_sources(
    {
        # stuff: MERGED brings the kinds of walls, floors, tables, buildings and waters together
        "wall-other-merged": "wall",
        "building-other-merged": "building",
        "house": "house",
        "sky-other-merged": "sky",
        "floor-other-merged": "floor",
        "tree-merged": "tree",
        "ceiling-merged": "ceiling",
        "road": "road",
        "window-other": "windowpane",
        "grass-merged": "grass, field",
        "cabinet-merged": "cabinet",
        "pavement-merged": "sidewalk",
        "dirt-merged": "earth",
        "door-stuff": "door",
        "table-merged": "table",
        "mountain-merged": "mountain",
        "curtain": "curtain",
        "water-other": "water",
        "shelf": "shelf",
        "sea": "sea",
        "mirror-stuff": "mirror",
        "rug-merged": "rug",
        # things
        "bed": "bed",
        "person": "person",
        "potted plant": "plant",
        "chair": "chair, armchair",
        "couch": "sofa",
        "car": "car",
        "dog": "dog",
        "cat": "cat",
        "horse": "horse",
        "cow": "cow",
        "sheep": "sheep",
        "bird": "bird",
        "bus": "bus",
        "bicycle": "bicycle",
        "motorcycle": "motorcycle",
        "boat": "boat",
        "train": "train",
        "airplane": "airplane",
        "bottle": "bottle",
        "tv": "television",
        "fence-merged": "fence",
        "traffic light": "traffic light",
        "stop sign": "traffic sign",
        "truck": "truck",
        None: "other, painting, pole",
    }
)

_SCENES_TO_MSRC23 = _from_sources(
    {
        "building": "building, house",
        "grass": "grass, field",
        "tree": "tree, plant",  # bushes are trees there
        "sky": "sky",
        "mountain": "mountain",
        "water": "water, sea",
        "road": "road, sidewalk",
        "body": "person",  # and MERGED makes faces bodies
        "car": "car",
        "chair": "chair, armchair",
        "cow": "cow",
        "horse": "horse",
        "sheep": "sheep",
        "aeroplane": "airplane",
        "bicycle": "bicycle",
        "bird": "bird",
        "cat": "cat",
        "dog": "dog",
        "boat": "boat",
        "sign": "traffic sign",
        None: "other, wall, floor, ceiling, bed, windowpane, cabinet, earth, door, table, curtain, painting, sofa, "
        "shelf, mirror, rug, bus, motorcycle, train, bottle, television, fence, pole, traffic light, truck",
    }
)

_SCENES_TO_FACADES8 = _from_sources(
    {
        "building": "building, house",
        "car": "car",
        "door": "door",
        "pavement": "sidewalk",
        "road": "road",
        "sky": "sky",
        "vegetation": "tree, plant, grass, field",
        "window": "windowpane",
        None: "other, wall, floor, ceiling, bed, cabinet, person, earth, table, mountain, curtain, chair, water, "
        "painting, sofa, shelf, sea, mirror, rug, armchair, dog, cat, horse, cow, sheep, bird, bus, bicycle, "
        "motorcycle, boat, train, airplane, bottle, television, fence, pole, traffic light, traffic sign, truck",
    }
)

_CITYSCAPES19_TO_VSPW: Table = {
    "road": "road",
    "sidewalk": "path",
    "building": "building",
    "wall": "wall",
    "fence": "handrail_or_fence",
    "pole": "pole",
    "traffic light": "traffic_light",
    "traffic sign": None,  # VSPW has billboards, but no traffic signs
    "vegetation": "tree",
    "terrain": "grass",
    "sky": "sky",
    "person": "person",
    "rider": "person",
    "car": "car",
    "truck": "truck",
    "bus": "bus",
    "train": "train",
    "motorcycle": "motorcycle",
    "bicycle": "bicycle",
}

_VOC21_TO_VSPW: Table = {
    "background": None,
    "aeroplane": "airplane",
    "bicycle": "bicycle",
    "bird": "other_animal",
    "boat": "ship_or_boat",
    "bottle": "bottle_or_cup",
    "bus": "bus",
    "car": "car",
    "cat": "cat",
    "chair": "chair_or_seat",
    "cow": "cattle",
    "diningtable": "table_or_desk",
    "dog": "dog",
    "horse": "horse",
    "motorbike": "motorcycle",
    "person": "person",
    "pottedplant": "other_plant",
    "sheep": "other_animal",
    "sofa": "sofa",
    "train": "train",
    "tvmonitor": "screen_or_television",
}

_VOC21_TO_COCO133: Table = {
    "background": None,
    **{name: name for name in VOC21 if name in COCO133},
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}

_VOC21_TO_MSRC23: Table = {
    **dict.fromkeys(("background", "bottle", "bus", "diningtable", "motorbike", "pottedplant", "sofa", "train")),
    "tvmonitor": None,
    **{name: name for name in VOC21 if name in MSRC23},
    "person": "body",
}

_VOC21_TO_FACADES8: Table = {**dict.fromkeys(VOC21), "car": "car", "pottedplant": "vegetation"}

KNOWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "scenes": SCENES.names,
    "ade150": ADE150,
    "cityscapes19": CITYSCAPES19,
    "voc21": VOC21,
    "vspw": VSPW,
    "coco133": COCO133,
    "msrc23": MSRC23,
    "facades8": FACADES8,
}

_SCENES: Mapping[str, Table] = {
    "vspw": _SCENES_TO_VSPW,
    "ade150": _SCENES_TO_ADE150,
    "cityscapes19": _SCENES_TO_CITYSCAPES19,
    "voc21": _SCENES_TO_VOC21,
    "coco133": _SCENES_TO_COCO133,
    "msrc23": _SCENES_TO_MSRC23,
    "facades8": _SCENES_TO_FACADES8,
}

TABLES: Mapping[tuple[str, str], Table] = {
    **{("scenes", target): table for target, table in _SCENES.items()},
    ("ade150", "vspw"): _part(_ADE150_TO_VSPW, ADE150),
    ("cityscapes19", "vspw"): _CITYSCAPES19_TO_VSPW,
    ("voc21", "vspw"): _VOC21_TO_VSPW,
    ("voc21", "coco133"): _VOC21_TO_COCO133,
    ("voc21", "msrc23"): _VOC21_TO_MSRC23,
    ("voc21", "facades8"): _VOC21_TO_FACADES8,
}
"""From a model's label set to a data set's, by the keys of ``KNOWN_NAMES``; every class of the model has its row."""

MERGED: Mapping[str, Mapping[str, str]] = {
    "coco133": {
        **dict.fromkeys(("wall-brick", "wall-stone", "wall-tile", "wall-wood"), "wall-other-merged"),
        "floor-wood": "floor-other-merged",
        "dining table": "table-merged",
        "house": "building-other-merged",
        "river": "water-other",
    },
    "msrc23": {"face": "body"},
}
"""Classes of a data set that are finer than any of our label sets -> the class of it that they are scored as."""
