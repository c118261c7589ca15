"""Combine soft labels of teachers with different classes, and of masks drawn by people.

ADE31's teachers know scenes but no animals, and label a dog as a person. VOC's teacher knows animals, vehicles and
things; all else is background. Cityscapes' teacher knows streets only. Per position:

1. "Person" of ADE31's teachers is divided among persons and animals as by VOC's.
2. Classes that only VOC knows take VOC's probability; the rest is divided as by ADE31's teachers.
3. Where VOC predicts a class that both know, their probabilities are averaged.
4. Where they contradict each other and neither is much more confident, there is no label.
5. In images of streets, Cityscapes' teacher is averaged in with a smaller weight. Its classes that stand for several
   of ours (vegetation) are divided as by the other teachers; those that only it knows (poles, signs) take its own.
6. A mask states which classes are right: the teachers' probabilities are restricted to these.

Shapes: G grid side; A = ADE31's classes, V = Pascal VOC's, C = Cityscapes', S = SCENES'. Probabilities are 0 to 1 over
the last axis; all 0 means "no label", which the loss ignores.

Fused labels are kept on disk, beside those of tfcseg/training/labelling.py:

    fused/<key>.npy     (G, G, S) or (T, G, G, S) uint8; <key> = hash of the inputs
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.files import make_folder
from tfcseg.labels.label_sets import ADE31, CITYSCAPES19, NO_CLASS, SCENES, VOC21
from tfcseg.machine import available_cores
from tfcseg.media.masks import read_mask
from tfcseg.options import OnStep
from tfcseg.training.labelling import Taught, save_labels, save_rows
from tfcseg.training.truth import VOC_NAMES, Meanings, Truth, read_meanings, truth_of

SURE, DOUBTFUL = 0.8, 0.3
"""From the first value on, VOC's teacher overrules ADE31's; below the second it is ignored."""

FIRM = 0.6
"""ADE31's teachers contradict an uncertain prediction of VOC's if they give another class more than this."""

LEAST_SHARE = 0.3
"""If teachers give a mask's classes less than this in all, the mask's main class gets the rest."""

_SCENES_OF_VOC = np.array([SCENES.index(VOC_NAMES.get(name, name)) for name in VOC21[1:]])
_IS_NEW: NDArray[np.bool_] = np.greater_equal(_SCENES_OF_VOC, len(ADE31))
_NEW, _SHARED = _SCENES_OF_VOC[_IS_NEW], _SCENES_OF_VOC[~_IS_NEW]
_PERSON = SCENES.index("person")
_IS_THING: NDArray[np.bool_] = np.isin(np.arange(len(SCENES)), [*_NEW, _PERSON, SCENES.index("car")])
"""Things in front of a scene, which are no part of it."""
_ANIMALS = [SCENES.index(name) for name in ("dog", "cat", "horse", "cow", "sheep", "bird")]
_IS_ANIMAL = np.isin(_NEW, _ANIMALS)
_VOC_ANIMALS = [_SCENES_OF_VOC.tolist().index(animal) for animal in _ANIMALS]
_VOC_PERSON = _SCENES_OF_VOC.tolist().index(_PERSON)

LEAST_LIVING = 0.2
"""VOC's teacher divides persons and animals where it gives both together at least this."""


CITY_WEIGHT = 1 / 3
"""Weight of Cityscapes' teacher in images of streets, for classes that the others know, too. Of 0.2, 1/3, 0.5, 0.7 and
1, this gave the best labels on a street clip."""

POLE_GAIN = 2
"""Factor on the probability of poles, which are thinner than the teachers' resolution. Of 1 to 4, this improved poles
on a street clip without harming people and cars."""

STREET_SHARE, INDOORS_SHARE = 0.05, 0.2
"""A street has at least the first share of paved ground and cars, and less than the second of indoor classes."""

_STREET = {"road": 1.0, "sidewalk": 1.0, "car": 0.5}
_INDOORS = [ADE31.index(name) for name in ("floor", "ceiling", "bed", "cabinet", "table", "sofa", "shelf", "rug")]

_CITY_COUNTERPARTS = {
    "building": ("building", "house"),
    "vegetation": ("tree", "plant", "grass"),
    "terrain": ("grass", "earth", "field"),
    "rider": ("person",),
}
"""SCENES' names of Cityscapes' classes; all others have the same name."""

_SCENES_OF_CITY = [[SCENES.index(ours) for ours in _CITY_COUNTERPARTS.get(name, (name,))] for name in CITYSCAPES19]
_POLE = CITYSCAPES19.index("pole")
_CITY_ONLY = [SCENES.index(name) for name in ("fence", "pole", "traffic light", "traffic sign", "truck")]


def fuse_teachers(scene: NDArray[np.uint8], things: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Combine labels of ADE31's teachers (G, G, A) and VOC's (G, G, V), both uint8 with 255 = certain: (G, G, S)."""
    ade, voc = (np.multiply(labels, 1 / 255, dtype=np.float32) for labels in (scene, things))
    objects = voc[..., 1:]
    fused = np.zeros((*ade.shape[:-1], len(SCENES)), np.float32)
    fused[..., : len(ADE31)] = ade
    _divide_persons(fused, objects)
    contradicts = _contradicts(fused[..., : len(ADE31)], objects[..., _IS_NEW])
    shared = objects[..., ~_IS_NEW]
    both = shared.max(-1) >= SURE
    # Average where VOC is confident of a class that both know.
    fused[both, : len(ADE31)] *= 0.5
    fused[..., _SHARED] += 0.5 * np.where(both[..., None], shared, 0)
    new = objects[..., _IS_NEW]
    fused *= 1 - new.sum(-1, keepdims=True)
    fused[..., _NEW] += new
    fused[contradicts] = 0
    return fused


def _divide_persons(fused: NDArray[np.float32], objects: NDArray[np.float32]) -> None:
    """Divide "person" of ADE31's teachers, who label animals so, as VOC's teacher divides persons and animals."""
    animals, persons = objects[..., _VOC_ANIMALS], objects[..., _VOC_PERSON]
    living = animals.sum(-1) + persons
    is_seen = living >= LEAST_LIVING
    living = np.maximum(living, LEAST_LIVING)
    fused[..., _ANIMALS] += (fused[..., _PERSON] * is_seen / living)[..., None] * animals
    fused[..., _PERSON] *= np.where(is_seen, persons / living, 1)


def is_street(scene: NDArray[np.uint8]) -> bool:
    """Whether labels of ADE31's teachers (G, G, A), uint8, show a street: paved ground and cars, not indoors."""
    share = scene[::4, ::4].mean((0, 1)) / 255
    paved = sum(share[ADE31.index(name)] * weight for name, weight in _STREET.items())
    return bool(paved >= STREET_SHARE and share[_INDOORS].sum() < INDOORS_SHARE)


def fuse_street(fused: NDArray[np.float32], street: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Add labels of Cityscapes' teacher (G, G, C), uint8, to the fused labels (G, G, S) of a street."""
    city = np.multiply(street, 1 / 255, dtype=np.float32)
    city[..., _POLE] = np.minimum(POLE_GAIN * city[..., _POLE], 1)
    city /= np.maximum(city.sum(-1, keepdims=True), 1)
    ours = np.zeros_like(fused)
    for number, counterparts in enumerate(_SCENES_OF_CITY):
        # Divide by the other teachers' probabilities; where these are all 0, take the first class.
        shares = fused[..., counterparts] + np.eye(len(counterparts), dtype=np.float32)[0] * 1e-3
        ours[..., counterparts] += city[..., number, None] * shares / shares.sum(-1, keepdims=True)
    alone = ours[..., _CITY_ONLY].sum(-1, keepdims=True)
    known = fused.sum(-1, keepdims=True)
    ours[..., _CITY_ONLY] = 0
    mixed = np.where(known > 0, (1 - CITY_WEIGHT) * fused + CITY_WEIGHT * ours, ours)
    mixed *= (1 - alone) / np.maximum(mixed.sum(-1, keepdims=True), 1e-6)
    for number, counterparts in enumerate(_SCENES_OF_CITY):
        if counterparts[0] in _CITY_ONLY:
            mixed[..., counterparts[0]] = city[..., number]
    return mixed


def _contradicts(ade: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where teachers contradict each other: an uncertain thing in a confident scene, or a confident person.

    Animals do not contradict persons, because ADE31's teachers label them so; vehicles and bottles do.
    """
    doubted = (new.sum(-1) > DOUBTFUL) & (new.sum(-1) < SURE)
    firm = ade[..., 1:].max(-1) > FIRM
    is_person = ade[..., _PERSON] > FIRM
    no_animal = new[..., ~_IS_ANIMAL].sum(-1) > DOUBTFUL
    return np.asarray((doubted & firm) | (is_person & no_animal))


def follow_mask(soft: NDArray[np.float32], mask: NDArray[np.uint8], meanings: Meanings) -> NDArray[np.float32]:
    """Restrict soft labels (G, G, S) to the classes that a mask (G, G) allows.

    Where the teachers give these little, the main class gets the rest: a door that they label as wall is a door.
    Labels stay as they are at values without a class, and at things that the data set does not name: masks of house
    fronts include people in front of them.
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
    followed = np.where(share >= LEAST_SHARE, seen, kept + (1 - share) * main)
    return np.asarray(np.where(has_truth, followed, soft), np.float32)


def to_bytes(soft: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities as uint8, 255 = certain."""
    return np.asarray(np.rint(255 * soft.clip(0, 1)), np.uint8)


def grid_mask(mask: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    """Reduce a mask (H, W) to (G, G): the value that fills two thirds of a cell, else NO_CLASS.

    Masks have coarse edges, so the teachers label the cells there.
    """
    side = 3 * grid
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(np.intp) for length in mask.shape)
    samples = mask[np.ix_(rows, columns)].reshape(grid, 3, grid, 3).transpose(0, 2, 1, 3).reshape(grid, grid, 9)
    middle: NDArray[np.uint8] = np.median(samples, axis=-1).astype(np.uint8)  # the majority's value, if there is one
    fills = (samples == middle[..., None]).sum(-1) >= 6
    middle[~fills] = NO_CLASS
    return middle


_VERSION = b"fused-8"


def fuse_media(
    scene: Sequence[Taught],
    things: Sequence[Taught],
    cache: Path,
    *,
    street: Sequence[Taught] = (),
    progress: OnStep = lambda done, total: None,
) -> list[Taught]:
    """Fuse labels of the same images and videos; masks beside images overrule the teachers.

    ``scene`` has the labels of ADE31's teachers, ``things`` those of VOC's, and ``street`` those of Cityscapes' for
    images and videos of streets. Only media in both ``scene`` and ``things`` are returned. A killed run resumes where
    it stopped. Raises DataError for a mask that cannot be read.
    """
    folder = cache / "fused"
    make_folder(folder)
    things_of, street_of = ({each.source: each.labels for each in found} for found in (things, street))
    kept = [each for each in scene if each.source in things_of]
    jobs: list[tuple[Sequence[Path], Truth | None, Path]] = []
    for each in kept:
        in_street = [street_of[each.source]] if each.source in street_of else []
        taught = (each.labels, things_of[each.source], *in_street)
        truth = None if each.frames else truth_of(each.source)
        jobs.append((taught, truth, folder / f"{_key(taught, truth)}.npy"))
    missing = list({job[-1]: job for job in jobs if not job[-1].exists()}.values())  # copies are fused once
    with ThreadPoolExecutor(available_cores()) as pool:  # NumPy releases the GIL
        for done, _ in enumerate(pool.map(lambda job: _fuse(*job), missing), start=1):
            progress(done, len(missing))
    return [replace(each, labels=target) for each, (*_, target) in zip(kept, jobs, strict=True)]


def _key(taught: Sequence[Path], truth: Truth | None) -> str:
    digest = hashlib.sha256(_VERSION)
    for labels in taught:
        # The names are hashes of teachers and source: the file's for stills, the folder's for clips.
        digest.update(f"{labels.parent.name}/{labels.name}\n".encode())
    for file in truth or ():
        digest.update(file.read_bytes())
    return digest.hexdigest()[:24]


def _fuse(files: Sequence[Path], truth: Truth | None, target: Path) -> None:
    """Fuse labels of ADE31's teachers, of VOC's and, in streets, of Cityscapes', and write them to ``target``."""
    taught = [np.load(labels, mmap_mode="r") for labels in files]
    if taught[0].ndim == 4:
        # Frame by frame: a whole clip would take gigabytes.
        save_rows(target, (to_bytes(_fused(*frame)) for frame in zip(*taught, strict=True)))
        return
    fused = _fused(*taught)
    if truth is not None:
        mask = grid_mask(read_mask(truth.mask), fused.shape[0])
        fused = follow_mask(fused, mask, read_meanings(truth.classes))
    save_labels(target, to_bytes(fused))


def _fused(scene: NDArray[np.uint8], things: NDArray[np.uint8], *street: NDArray[np.uint8]) -> NDArray[np.float32]:
    fused = fuse_teachers(scene, things)
    return fuse_street(fused, *street) if street else fused
