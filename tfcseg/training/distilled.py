"""Unlabelled images and videos as training data: labels of teachers, and how often each photo is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.labels.label_sets import ADE31, CITYSCAPES19, SCENES, VOC21
from tfcseg.media.source import absolute
from tfcseg.model.options import KEYFRAME_INTERVAL
from tfcseg.options import OnStep
from tfcseg.spelling import count_of
from tfcseg.training.datasets import ClipSource, CollageSource, PseudoClipSource, Source, StillSource, Weighted
from tfcseg.training.foreground import PERSON, PLANT
from tfcseg.training.fusion import fuse_media, is_street
from tfcseg.training.labelling import (
    Taught,
    alone_in,
    defect_of,
    examine,
    find_media,
    is_image,
    label_media,
    mask_defect_of,
    refuse,
)
from tfcseg.training.recipes import Material, TrainOptions
from tfcseg.training.teachers import taught_labels, teachers_by_classes
from tfcseg.training.truth import truth_of

HELD_OUT_EVERY = 50
"""Every 50th still is used for validation, not for training."""

MASK_SHARE = 1.5
"""Weight of a photo with a mask drawn by people, relative to photos labelled by teachers alone."""

RARITY = 0.5
"""Power of the weights of photos of rare classes; 1 (all classes equally often) cost steadiness."""

DONOR_SHARES = (0.02, 0.3)
"""Photos with more of a class than the first share, and less than the second, show things of it whole."""

COLLAGE_SHARE = 0.25
"""Share of collages among samples of photos."""


def distilled_material(
    media: Sequence[Path],
    teachers: Sequence[Path],
    cache: Path,
    options: TrainOptions,
    *,
    skip_bad: bool = False,
    progress: OnStep = lambda done, total: None,
    notify: Callable[[str], None] = lambda note: None,
) -> Material:
    """Label the media (once); sources are stills in stage ``image``, clips and pseudo-clips in ``tfc``.

    Raises DataError for damaged files, unless ``skip_bad``.
    """
    found, labels = find_media(media), taught_labels(teachers)
    examined = list(zip(found, examine(_defect_in_set if labels is SCENES else defect_of, found), strict=True))
    defects = [f"{path}: {defect}" for path, defect in examined if defect]
    sound = [path for path, defect in examined if not defect]
    if not skip_bad:
        refuse(defects, "damaged files")
    with alone_in(cache, notify):
        taught = _label(sound, teachers, cache, progress)
    stills, clips = [each for each in taught if not each.frames], [each for each in taught if each.frames]
    labelled = {each.source for each in taught}
    unlabelled = [f"{path}: cannot be decoded" for path in sound if path not in labelled]
    if not skip_bad:
        refuse(unlabelled, "some files could not be labelled")
    held_out, kept = stills[::HELD_OUT_EVERY], [s for i, s in enumerate(stills) if i % HELD_OUT_EVERY]
    if not kept:
        raise DataError(f"{len(stills)} readable images: at least 2 are needed (videos alone cannot validate)")
    drawn = np.array([truth_of(still.source) is not None for still in kept])
    weights = folder_weights([still.source for still in kept], options.folder_weights)
    clip_weights = folder_weights([clip.source for clip in clips], options.folder_weights)
    sources: list[Source]
    validation: Source
    if options.stage == "image":
        seen_shares = class_shares(kept)
        weights *= rarity_weights(seen_shares) ** RARITY * np.where(drawn, MASK_SHARE, 1.0)
        photos = _photos(kept, options.crop, weights, seen_shares, drawn)
        sources = [photos, CollageSource(photos)]
        shares = [(1 - COLLAGE_SHARE) * float(weights.sum()), COLLAGE_SHARE * float(weights.sum())]
        validation = StillSource(Weighted(held_out), options.crop)
        # Frames of a clip resemble each other: ten of them count as one photo.
        length, clip_share = 1, float(np.dot([len(clip.frames) for clip in clips], clip_weights)) / 10
    else:
        length, clip_share = KEYFRAME_INTERVAL, 0.5
        sources, shares = [PseudoClipSource(Weighted(kept, weights), options.crop, length)], [0.5]
        validation = PseudoClipSource(Weighted(held_out), options.crop, length)
    if clips:
        sources.append(ClipSource(clips, options.crop, length, clip_weights))
        shares.append(clip_share)
    seen = count_of(len(kept), "photo") + (f" and {count_of(len(clips), 'video clip')}" if clips else "")
    if labels is SCENES and drawn.any():
        seen += f", {drawn.sum()} of them with masks drawn by people"
    description = f"distilled from {', '.join(path.stem for path in teachers)} on {seen}"
    return Material(sources, shares, validation, labels, description, left_out=defects + unlabelled)


def _defect_in_set(path: Path) -> str | None:
    """Defect of an image or video, or of an image's mask, which would be told after all labelling."""
    truth = truth_of(path) if is_image(path) else None
    return defect_of(path) or (None if truth is None else mask_defect_of(truth.mask))


def _label(media: Sequence[Path], teachers: Sequence[Path], cache: Path, progress: OnStep) -> list[Taught]:
    """Label all media in the classes of `taught_labels`."""
    groups = teachers_by_classes(teachers)
    city = groups.pop(len(CITYSCAPES19), None)
    label = partial(label_media, cache=cache, progress=progress)
    labelled = {known: label(media, group) for known, group in groups.items()}
    if len(groups) == 1:
        return next(iter(labelled.values()))
    scene, things = labelled[len(ADE31)], labelled[len(VOC21)]
    street: list[Taught] = []
    if city is not None:
        # This teacher takes every room for a street, so it labels streets only. Of a clip, the first frame counts.
        loaded = ((each, np.load(each.labels, mmap_mode="r")) for each in scene)
        street = label([each.source for each, soft in loaded if is_street(soft[0] if each.frames else soft)], city)
    return fuse_media(scene, things, cache, street=street, progress=progress)


def _photos(
    stills: Sequence[Taught],
    crop: int,
    weights: NDArray[np.float64],
    shares: NDArray[np.float64],
    drawn: NDArray[np.bool_],
) -> StillSource:
    """Source of views of stills with class ``shares`` (N, K), of which some have masks ``drawn`` by people (N,)."""
    people, plants = (donor_weights(shares, label) for label in (PERSON, PLANT))
    if (people * drawn).any():
        people *= drawn  # masks drawn by people show where a person ends
    donors = (Weighted(stills, each) if each.any() else None for each in (people, plants))
    return StillSource(Weighted(stills, weights), crop, *donors)


def donor_weights(shares: NDArray[np.float64], label: int) -> NDArray[np.float64]:
    """Weight of each still, with class ``shares`` (N, K), as a source of things of a class to paste, (N,).

    It is the class's share, if that lets expect that some are seen whole.
    """
    own = shares[:, label] if shares.shape[1] == len(SCENES) else np.zeros(len(shares))
    return np.where((own > DONOR_SHARES[0]) & (own < DONOR_SHARES[1]), own, 0.0)


def class_shares(stills: Sequence[Taught]) -> NDArray[np.float64]:
    """(N, K): share of each class in the soft labels of each still; all 0 without labels."""
    # Every fourth row and column: labels are smooth, and all files are read before training starts.
    shares = [np.load(still.labels, mmap_mode="r")[::4, ::4].sum((0, 1), dtype=np.float64) for still in stills]
    stacked = np.stack(shares)
    return np.asarray(stacked / np.maximum(stacked.sum(1, keepdims=True), 1), np.float64)


def rarity_weights(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of each still in drawing, (N,) with mean 1, from class shares (N, K).

    Rare class sampling as in DAFormer (Hoyer et al., CVPR 2022, sec. 3.3): draw a class, then a photo that shows it.
    Both draws together are P(still) = 1/K · Σ_k share_k(still) / Σ_j share_k(j).
    """
    frequency = shares.mean(0)
    seen = frequency > 0
    if not seen.any():
        return np.ones(len(shares))
    return np.asarray((shares[:, seen] / frequency[seen]).mean(1), np.float64)


def folder_weights(paths: Sequence[Path], folders: Sequence[tuple[str, float]]) -> NDArray[np.float64]:
    """Weight of the innermost of the ``folders`` (absolute path, weight) that holds each path; 1 outside all."""
    inmost = sorted(folders, key=lambda entry: -len(Path(entry[0]).parts))
    weights = [
        next((weight for folder, weight in inmost if absolute(path).is_relative_to(folder)), 1.0) for path in paths
    ]
    return np.array(weights, np.float64)
