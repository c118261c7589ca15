"""Fuse the soft labels of several kinds of teachers, and masks, into SCENES' classes, and keep them on disk.

Layout of the cache, beside that of tfcseg/training/labelling.py:

    fused/<key>.npy     (G, G, S) or (T, G, G, S) uint8; <key> = hash of the inputs
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.machine import available_cores
from tfcseg.training.fusion import follow_mask, fuse_street, fuse_teachers, grid_mask, to_bytes
from tfcseg.training.labelling import Clip, OnLabelled, Still, save_labels
from tfcseg.training.truth import class_file, mask_of, read_truth

Labelled = tuple[Sequence[Still], Sequence[Clip]]

_VERSION = b"fused-8"


class _Job(NamedTuple):
    taught: tuple[Path, ...]
    """Labels of ADE31's teachers, of VOC's and, in streets, of Cityscapes'."""
    mask: Path | None
    target: Path


def fuse_media(
    scene: Labelled,
    things: Labelled,
    cache: Path,
    *,
    street: Labelled = ((), ()),
    progress: OnLabelled = lambda done, total: None,
) -> tuple[list[Still], list[Clip]]:
    """Fuse labels of the same images and videos; masks beside images overrule the teachers.

    ``scene`` has the labels of ADE31's teachers, ``things`` those of VOC's, and ``street`` those of Cityscapes' for
    images and videos of streets. Only media in both ``scene`` and ``things`` are returned. A killed run resumes where
    it stopped. Raises DataError for a mask that cannot be read.
    """
    folder = cache / "fused"
    folder.mkdir(parents=True, exist_ok=True)
    things_of, street_of = (
        {still.image: still.labels for still in stills} | {clip.video: clip.labels for clip in clips}
        for stills, clips in (things, street)
    )

    def job(source: Path, labels: Path, mask: Path | None) -> _Job:
        in_street = [street_of[source]] if source in street_of else []
        taught = (labels, things_of[source], *in_street)
        return _Job(taught, mask, folder / f"{_key(taught, mask)}.npy")

    still_jobs = [(own, job(own.image, own.labels, mask_of(own.image))) for own in scene[0] if own.image in things_of]
    clip_jobs = [(own, job(own.video, own.labels, None)) for own in scene[1] if own.video in things_of]
    jobs = [each for _, each in (*still_jobs, *clip_jobs) if not each.target.exists()]
    with ThreadPoolExecutor(available_cores()) as pool:  # NumPy releases the GIL
        for done, _ in enumerate(pool.map(_fuse, jobs), start=1):
            progress(done, len(jobs))
    return (
        [Still(own.image, each.target) for own, each in still_jobs],
        [Clip(own.video, own.frames, each.target) for own, each in clip_jobs],
    )


def _key(taught: Sequence[Path], mask: Path | None) -> str:
    digest = hashlib.sha256(_VERSION)
    for labels in taught:
        # The names are hashes of teachers and source: the file's for stills, the folder's for clips.
        digest.update(f"{labels.parent.name}/{labels.name}\n".encode())
    if mask is not None:
        digest.update(mask.read_bytes())
        digest.update(class_file(mask).read_bytes())
    return digest.hexdigest()[:24]


def _fuse(job: _Job) -> None:
    taught = [np.load(labels, mmap_mode="r") for labels in job.taught]
    if len({labels.shape[:-1] for labels in taught}) > 1:
        raise DataError(f"{job.taught[0]} and {job.taught[1]} do not label the same frames; delete both, label again")
    if taught[0].ndim == 4:
        # Frame by frame: a whole clip in float32 would take gigabytes.
        save_labels(job.target, np.stack([to_bytes(_fused(*frame)) for frame in zip(*taught, strict=True)]))
        return
    fused = _fused(*taught)
    if job.mask is not None:
        values, meanings = read_truth(job.mask)
        fused = follow_mask(fused, grid_mask(values, fused.shape[0]), meanings)
    save_labels(job.target, to_bytes(fused))


def _fused(scene: NDArray[np.uint8], things: NDArray[np.uint8], *street: NDArray[np.uint8]) -> NDArray[np.float32]:
    fused = fuse_teachers(scene, things)
    return fuse_street(fused, *street) if street else fused
