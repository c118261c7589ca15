"""Soft labels in SCENES' classes on disk, fused from those of two kinds of teachers and from masks.

Layout of the cache, beside that of tfcseg/training/labelling.py:

    fused/<key>.npy     (G, G, S) or (T, G, G, S) uint8; <key> = hash of what it was fused from
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

_VERSION = b"fused-6"


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
    """What both kinds of teachers labelled, with fused labels; masks beside the images are followed.

    ``scene`` are the labels of ADE31's teachers, ``things`` those of VOC's, of the same images and videos; ``street``
    those of Cityscapes' teachers of the streets among them. DataError for a mask that cannot be read. Fusing goes on
    where a killed run stopped.
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
    with ThreadPoolExecutor(available_cores()) as pool:  # NumPy computes outside of Python's lock
        for done, _ in enumerate(pool.map(_fuse, jobs), start=1):
            progress(done, len(jobs))
    return (
        [Still(own.image, job.target) for (own, _), job in zip(stills, still_jobs, strict=True)],
        [Clip(own.video, own.frames, job.target) for (own, _), job in zip(clips, clip_jobs, strict=True)],
    )


def _job(taught: tuple[Path, Path, Path | None], mask: Path | None, folder: Path) -> _Job:
    digest = hashlib.sha256(_VERSION)
    for labels in filter(None, taught):
        # Names of labels are hashes of teachers and source already; of a clip's, the folder's.
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
        save_labels(job.target, to_bytes(_with_mask(_fused(*taught), job.mask)))
        return
    # Frame by frame: a clip's probabilities in float32 would be gigabytes.
    save_labels(job.target, np.stack([to_bytes(_fused(*frame)) for frame in zip(*taught, strict=True)]))


def _fused(
    scene: NDArray[np.uint8], things: NDArray[np.uint8], street: NDArray[np.uint8] | None = None
) -> NDArray[np.float32]:
    fused = fuse_teachers(scene, things)
    return fused if street is None else fuse_street(fused, street)


def _with_mask(soft: NDArray[np.float32], mask: Path | None) -> NDArray[np.float32]:
    if mask is None:
        return soft
    values, meanings = read_truth(mask)
    return follow_mask(soft, grid_mask(values, soft.shape[0]), meanings)
