"""One set of soft labels from teachers that know different classes, and from masks where people drew them.

Shapes: G grid side; A = ADE31's classes, V = Pascal VOC's, C = Cityscapes', S = SCENES' classes. Probabilities are 0 to
1 over the last axis; all 0 means "no label", which the loss leaves out.

ADE31's teachers see scenes but know no animals, and call a dog a person; VOC's teacher knows animals, vehicles and
things, and calls the rest background; Cityscapes' teacher knows streets well and nothing else. Per position:

1. Classes that only VOC knows take VOC's probability; what it leaves is ADE31's to share out.
2. Where both know the class that VOC sees, their means hold.
3. There is no label where they contradict each other and neither is much surer than the other.
4. In a picture of a street, Cityscapes' teacher has a share of the say. A class of its own that stands for several of
   ours (vegetation) is shared out as the others see them; what only it knows (poles, fences, signs) takes its
   probability.
5. A mask says which classes are right: the teachers' probabilities are cut down to these.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfcseg.labels.label_names import CITYSCAPES19, VOC21
from tfcseg.labels.label_sets import ADE31, NO_CLASS, SCENES

SURE, DOUBTFUL = 0.8, 0.3
"""VOC's teacher is believed against ADE31's from the first on; below the second it does not object."""

FIRM = 0.6
"""ADE31's teachers object to something that VOC's teacher doubts if they are this sure of what else it is."""

LEAST_SHARE = 0.3
"""Teachers that give less than this to what a mask allows have not seen it: the mask's main class gets the rest."""

VOC_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "table",
    "motorbike": "motorcycle",
    "pottedplant": "plant",
    "tvmonitor": "television",
}
"""What SCENES calls VOC's classes; all others have the same name, and background has none."""

_SCENES_OF_VOC = np.array([SCENES.index(VOC_NAMES.get(name, name)) for name in VOC21[1:]])
_IS_NEW: NDArray[np.bool_] = np.greater_equal(_SCENES_OF_VOC, len(ADE31))
_NEW, _SHARED = _SCENES_OF_VOC[_IS_NEW], _SCENES_OF_VOC[~_IS_NEW]
_PERSON = SCENES.index("person")
_IS_THING: NDArray[np.bool_] = np.isin(np.arange(len(SCENES)), [*_NEW, _PERSON, SCENES.index("car")])
"""What stands before a scene and is no part of it."""
_IS_ANIMAL = np.isin(_NEW, [SCENES.index(name) for name in ("dog", "cat", "horse", "cow", "sheep", "bird")])


CITY_SAY = 1 / 3
"""Share of the say that Cityscapes' teacher has in a street about classes that the others know, too. Of 0.2, 1/3, 0.5,
0.7 and 1 this one was nearest to the truth on a clip of a street."""

POLE_GAIN = 2
"""Poles are thinner than what teachers resolve: their probability is spread over what lies beside them. Of 1 to 4 this
one helped poles on a clip of a street and cost people and cars nothing."""

STREET_SHARE, INDOORS_SHARE = 0.05, 0.2
"""A street shows at least so much of paved ground and cars, and less than the second of what rooms are made of."""

_STREET = {"road": 1.0, "sidewalk": 1.0, "car": 0.5}
_INDOORS = [ADE31.index(name) for name in ("floor", "ceiling", "bed", "cabinet", "table", "sofa", "shelf", "rug")]

_CITY_COUNTERPARTS = {
    "building": ("building", "house"),
    "vegetation": ("tree", "plant", "grass"),
    "terrain": ("grass", "earth", "field"),
    "rider": ("person",),
}
"""What SCENES calls Cityscapes' classes; all others have the same name."""

_SCENES_OF_CITY = [[SCENES.index(ours) for ours in _CITY_COUNTERPARTS.get(name, (name,))] for name in CITYSCAPES19]
_POLE = CITYSCAPES19.index("pole")
_CITY_ONLY = [SCENES.index(name) for name in ("fence", "pole", "traffic light", "traffic sign", "truck")]


def fuse_teachers(scene: NDArray[np.uint8], things: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Soft labels (G, G, S) of ADE31's teachers (G, G, A) and VOC's (G, G, V), both uint8 with 255 = certain."""
    ade, voc = (np.multiply(labels, 1 / 255, dtype=np.float32) for labels in (scene, things))
    objects = voc[..., 1:]
    fused = np.zeros((*ade.shape[:-1], len(SCENES)), np.float32)
    fused[..., : len(ADE31)] = ade
    shared = objects[..., ~_IS_NEW]
    both = shared.max(-1) >= SURE
    # Where VOC is sure of a class that both know, half of the say is its.
    fused[both, : len(ADE31)] *= 0.5
    fused[..., _SHARED] += 0.5 * np.where(both[..., None], shared, 0)
    new = objects[..., _IS_NEW]
    fused *= 1 - new.sum(-1, keepdims=True)
    fused[..., _NEW] += new
    fused[_contradicts(ade, new)] = 0
    return fused


def is_street(scene: NDArray[np.uint8]) -> bool:
    """Whether ADE31's teachers (G, G, A), uint8, see a street: paved ground and cars outside of a room."""
    share = scene[::4, ::4].mean((0, 1)) / 255
    paved = sum(share[ADE31.index(name)] * weight for name, weight in _STREET.items())
    return bool(paved >= STREET_SHARE and share[_INDOORS].sum() < INDOORS_SHARE)


def fuse_street(fused: NDArray[np.float32], street: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give Cityscapes' teacher (G, G, C), uint8, its say in fused labels (G, G, S) of a street."""
    city = np.multiply(street, 1 / 255, dtype=np.float32)
    city[..., _POLE] = np.minimum(POLE_GAIN * city[..., _POLE], 1)
    city /= np.maximum(city.sum(-1, keepdims=True), 1)
    said = np.zeros_like(fused)
    for number, counterparts in enumerate(_SCENES_OF_CITY):
        # The others' probabilities say which of several classes it is; where they see none of them, the first.
        shares = fused[..., counterparts] + np.eye(len(counterparts), dtype=np.float32)[0] * 1e-3
        said[..., counterparts] += city[..., number, None] * shares / shares.sum(-1, keepdims=True)
    alone = said[..., _CITY_ONLY].sum(-1, keepdims=True)
    known = fused.sum(-1, keepdims=True)
    said[..., _CITY_ONLY] = 0
    mixed = np.where(known > 0, (1 - CITY_SAY) * fused + CITY_SAY * said, said)
    mixed *= (1 - alone) / np.maximum(mixed.sum(-1, keepdims=True), 1e-6)
    for number, counterparts in enumerate(_SCENES_OF_CITY):
        if counterparts[0] in _CITY_ONLY:
            mixed[..., counterparts[0]] = city[..., number]
    return mixed


def _contradicts(ade: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the teachers exclude each other: a doubted thing in a firm scene, or a firm person that is a television.

    An animal may be the person that ADE31's teachers take it for; a vehicle or a bottle is not.
    """
    doubted = (new.sum(-1) > DOUBTFUL) & (new.sum(-1) < SURE)
    firm = ade[..., 1:].max(-1) > FIRM
    is_person = ade[..., _PERSON] > FIRM
    no_animal = new[..., ~_IS_ANIMAL].sum(-1) > DOUBTFUL
    contradiction: NDArray[np.bool_] = (doubted & firm) | (is_person & no_animal)
    return contradiction


class Meanings(NamedTuple):
    """What the values of a mask may be, ``allowed`` (256, S), and the likeliest class of each, ``main`` (256,)."""

    allowed: NDArray[np.bool_]
    main: NDArray[np.intp]


def follow_mask(soft: NDArray[np.float32], mask: NDArray[np.uint8], meanings: Meanings) -> NDArray[np.float32]:
    """Soft labels (G, G, S) cut down to what a mask (G, G) allows.

    Where the teachers see little of what is allowed, the main class takes what they give to others: a door that they
    call a wall is a door. A value without any class leaves the teachers' labels as they are. So do things before a
    scene that the set has no name for: masks of house fronts run through people.
    """
    unnamed = np.nonzero(_IS_THING & ~meanings.allowed.any(0))[0]
    rows = meanings.allowed[mask]
    is_overlooked = (soft[..., unnamed].sum(-1) > 0.5) & ((rows & _IS_THING).sum(-1) == 0)
    rows = rows & ~is_overlooked[..., None]
    has_truth = rows.sum(-1, keepdims=True) > 0
    kept = soft * rows
    share = kept.sum(-1, keepdims=True)
    main = np.arange(soft.shape[-1]) == meanings.main[mask][..., None]
    seen = kept / np.maximum(share, LEAST_SHARE)
    followed: NDArray[np.float32] = np.where(share >= LEAST_SHARE, seen, kept + (1 - share) * main)
    return np.where(has_truth, followed, soft).astype(np.float32)


def to_bytes(soft: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities as uint8, 255 = certain."""
    scaled: NDArray[np.uint8] = np.rint(255 * soft.clip(0, 1)).astype(np.uint8)
    return scaled


def grid_mask(mask: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    """A mask (H, W) at (G, G): the most frequent value of a cell if it fills two thirds of it, else NO_CLASS.

    Masks have coarse edges; a cell on one is left to the teachers.
    """
    side = 3 * grid
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(np.intp) for length in mask.shape)
    samples = mask[np.ix_(rows, columns)].reshape(grid, 3, grid, 3).transpose(0, 2, 1, 3).reshape(grid, grid, 9)
    middle: NDArray[np.uint8] = np.sort(samples, axis=-1)[
        ..., 4
    ].copy()  # of a value that fills more than half, that value
    fills = (samples == middle[..., None]).sum(-1) >= 6
    middle[~fills] = NO_CLASS
    return middle
