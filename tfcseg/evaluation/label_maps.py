"""What a model's classes are called in a data set: explicit tables of names, built in or from a file.

A map goes from model class to data set class. Several model classes may go to one; a model class without counterpart is
left out and is never right in that data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tfcseg.errors import DataError
from tfcseg.evaluation.label_names import ADE150, CITYSCAPES19, VOC21, VSPW
from tfcseg.evaluation.vspw import read_json_object
from tfcseg.labels import ADE31, LabelSet

LabelMap = Mapping[str, str]


def _from_sources(table: Mapping[str, str]) -> dict[str, str]:
    """Turn {data set class: "model class, model class"} into {model class: data set class}."""
    return {name: target for target, names in table.items() for name in names.split(", ")}


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

_ADE31_TO_CITYSCAPES19 = {
    "wall": "wall",
    "building": "building",
    "house": "building",
    "sky": "sky",
    "road": "road",
    "sidewalk": "sidewalk",
    "tree": "vegetation",
    "plant": "vegetation",
    "grass": "terrain",
    "earth": "terrain",
    "field": "terrain",
    "person": "person",
    "car": "car",
}

_ADE31_TO_VOC21 = {
    # whatever is not an object of VOC is its background
    **dict.fromkeys(ADE31.names, "background"),
    "person": "person",
    "car": "car",
    "chair": "chair",
    "armchair": "chair",
    "sofa": "sofa",
    "table": "diningtable",
    "plant": "pottedplant",
}

_CITYSCAPES19_TO_VSPW = {
    "road": "road",
    "sidewalk": "path",
    "building": "building",
    "wall": "wall",
    "fence": "handrail_or_fence",
    "pole": "pole",
    "traffic light": "traffic_light",
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

_VOC21_TO_VSPW = {
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

KNOWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "ade31": ADE31.names,
    "ade150": ADE150,
    "cityscapes19": CITYSCAPES19,
    "voc21": VOC21,
    "vspw": VSPW,
}

BUILT_IN: Mapping[tuple[str, str], LabelMap] = {
    ("ade31", "vspw"): {name: _ADE150_TO_VSPW[name] for name in ADE31.names if name in _ADE150_TO_VSPW},
    ("ade31", "ade150"): {name: name for name in ADE31.names if name in ADE150},
    ("ade31", "cityscapes19"): _ADE31_TO_CITYSCAPES19,
    ("ade31", "voc21"): _ADE31_TO_VOC21,
    ("ade150", "vspw"): _ADE150_TO_VSPW,
    ("cityscapes19", "vspw"): _CITYSCAPES19_TO_VSPW,
    ("voc21", "vspw"): _VOC21_TO_VSPW,
}
"""Maps from a model's label set to a data set's, by the keys of ``KNOWN_NAMES``."""


def built_in_label_map(model: LabelSet, dataset: LabelSet) -> LabelMap:
    """Find the map between two label sets, which are recognised by their class names and not by what they are called.

    The same names map to themselves. A data set with some of VSPW's classes gets VSPW's map, cut to what it has.
    DataError, saying how to give a map, if there is none.
    """
    if set(model.names) == set(dataset.names):
        return {name: name for name in model.names}
    for (source, target), label_map in BUILT_IN.items():
        known = set(KNOWN_NAMES[target])
        if set(model.names) != set(KNOWN_NAMES[source]):
            continue
        if set(dataset.names) == known or (target == "vspw" and set(dataset.names) <= known):
            kept = {name: counterpart for name, counterpart in label_map.items() if counterpart in dataset.names}
            if kept:
                return kept
    raise DataError(
        f"no built-in label map from label set {model.name!r} to {dataset.name!r}; write one as JSON,"
        " {model class: data set class, …}, and give it with --label-map"
    )


def read_label_map(path: str | Path, model: LabelSet, dataset: LabelSet) -> LabelMap:
    """Read ``{"model class": "data set class", …}``; a model class with null, or left out, has no counterpart.

    DataError names the file and the first name that is no class of its label set.
    """
    path = Path(path)
    label_map: dict[str, str] = {}
    for name, counterpart in read_json_object(path).items():
        if counterpart is not None and not isinstance(counterpart, str):
            raise DataError(f"{path}: {name!r} goes to {counterpart!r}; give the name of a data set class, or null")
        try:
            model.index(name)
            if counterpart is not None:
                dataset.index(counterpart)
                label_map[name] = counterpart
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    if not label_map:
        raise DataError(f"{path}: maps no class; it should read {{model class: data set class, …}}")
    return label_map
