"""Fuse the soft labels of several kinds of teachers, and masks, into SCENES' classes, and keep them on disk.

Layout of the cache, beside that of tfcseg/training/labelling.py:

    fused/<key>.npy     (G, G, S) or (T, G, G, S) uint8; <key> = hash of the inputs
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.machine import available_cores
from tfcseg.training.fusion import follow_mask, fuse_street, fuse_teachers, grid_mask, to_bytes
from tfcseg.training.labelling import Clip, Still, save_labels
from tfcseg.training.truth import class_file, mask_of, read_truth

Labelled = tuple[Sequence[Still], Sequence[Clip]]

_VERSION = b"fused-8"


class _Job(NamedTuple):
    scene: Path
    things: Path
    street: Path | None
    mask: Path | None
    target: Path


def fuse_media(
    scene: Labelled,
    things: Labelled,
    cache: Path,
    *,
    street: Labelled = ((), ()),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Still], list[Clip]]:
    """Fuse labels of the same images and videos; masks beside images overrule the teachers.

    ``scene`` has the labels of ADE31's teachers, ``things`` those of VOC's, and ``street`` those of Cityscapes' for
    images and videos of streets. Only media in both ``scene`` and ``things`` are returned. A killed run resumes where
    it stopped. Raises DataError for a mask that cannot be read.
    """
    folder = cache / "fused"
    folder.mkdir(parents=True, exist_ok=True)
    by_image = {still.image: still for still in things[0]}
    by_video = {clip.video: clip for clip in things[1]}
    stills = [(own, by_image[own.image]) for own in scene[0] if own.image in by_image]
    clips = [(own, by_video[own.video]) for own in scene[1] if own.video in by_video]
    streets = {still.image: still.labels for still in street[0]} | {clip.video: clip.labels for clip in street[1]}
    still_jobs = [
        _job((own.labels, other.labels, streets.get(own.image)), mask_of(own.image), folder) for own, other in stills
    ]
    clip_jobs = [_job((own.labels, other.labels, streets.get(own.video)), None, folder) for own, other in clips]
    jobs = [job for job in (*still_jobs, *clip_jobs) if not job.target.exists()]
    with ThreadPoolExecutor(available_cores()) as pool:  # NumPy releases the GIL
        for done, _ in enumerate(pool.map(_fuse, jobs), start=1):
            progress(done, len(jobs))
    return (
        [Still(own.image, job.target) for (own, _), job in zip(stills, still_jobs, strict=True)],
        [Clip(own.video, own.frames, job.target) for (own, _), job in zip(clips, clip_jobs, strict=True)],
    )


def _job(taught: tuple[Path, Path, Path | None], mask: Path | None, folder: Path) -> _Job:
    digest = hashlib.sha256(_VERSION)
    for labels in filter(None, taught):
        # The names are hashes of teachers and source: the file's for stills, the folder's for clips.
        digest.update(f"{labels.parent.name}/{labels.name}\n".encode())
    if mask is not None:
        digest.update(mask.read_bytes())
        digest.update(class_file(mask).read_bytes())
    return _Job(*taught, mask, folder / f"{digest.hexdigest()[:24]}.npy")


def _fuse(job: _Job) -> None:
    taught = [np.load(labels, mmap_mode="r") for labels in (job.scene, job.things, job.street) if labels is not None]
    if len({labels.shape[:-1] for labels in taught}) > 1:
        raise DataError(f"{job.scene} and {job.things} do not label the same frames; delete both and label again")
    if taught[0].ndim == 3:
        fused = _fused(*taught)
        if job.mask is not None:
            values, meanings = read_truth(job.mask)
            fused = follow_mask(fused, grid_mask(values, fused.shape[0]), meanings)
        save_labels(job.target, to_bytes(fused))
        return
    # Frame by frame: a whole clip in float32 would take gigabytes.
    save_labels(job.target, np.stack([to_bytes(_fused(*frame)) for frame in zip(*taught, strict=True)]))


def _fused(
    scene: NDArray[np.uint8], things: NDArray[np.uint8], street: NDArray[np.uint8] | None = None
) -> NDArray[np.float32]:
    fused = fuse_teachers(scene, things)
    return fused if street is None else fuse_street(fused, street)
