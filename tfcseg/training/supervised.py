"""Supervised training on a VSPW folder, as in the paper: data and initial network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tfcseg.evaluation.vspw import open_vspw
from tfcseg.labels.label_sets import LabelSet
from tfcseg.model.options import KEYFRAME_INTERVAL, PAPER_OPTIONS
from tfcseg.model.tfc import TFCSegmenter, build_segmenter
from tfcseg.training.damage import refuse
from tfcseg.training.datasets import SampleStream
from tfcseg.training.loop import TrainOptions
from tfcseg.training.recipes import (
    VALIDATION_SAMPLES,
    VALIDATION_SEED,
    Material,
    count_of,
    start_network,
    untrained_card,
    with_classes,
)
from tfcseg.training.vspw_clips import VspwClipSource, find_sound_frames
from tfcseg.weights.convert import ConvertedEncoder, convert_pretrained
from tfcseg.weights.loading import ModelCard
from tfcseg.weights.tensor_file import is_pickle
from tfcseg.weights.tensor_header import read_header


def vspw_material(root: Path, options: TrainOptions, processes: int, *, skip_bad: bool) -> Material:
    """Clips of one interval from the train split; plain crops of the val split for validation."""
    train, validation = open_vspw(root, "train"), open_vspw(root, "val")
    found, held_out = find_sound_frames(train), find_sound_frames(validation)
    left_out = found.defects + held_out.defects
    if not skip_bad:
        refuse(left_out, str(root))
    length = 1 if options.stage == "image" else KEYFRAME_INTERVAL
    crop, size = options.crop, options.short_side_px
    clips = VspwClipSource(train, found, crop, length, short_side_px=size)
    plain = VspwClipSource(validation, held_out, crop, length, short_side_px=size, is_augmented=False)
    return Material(
        SampleStream([clips], [1.0], count=options.steps * options.batch * processes, seed=options.seed),
        SampleStream([plain], [1.0], count=VALIDATION_SAMPLES, seed=VALIDATION_SEED),
        train.labels,
        f"supervised on {root.resolve().name} ({count_of(len(train.videos), 'video')})",
        left_out=left_out,
    )


def start_supervised(
    backbone: str, labels: LabelSet, init: str | Path | None, short_side_px: int, embed_dim: int | None = None
) -> tuple[TFCSegmenter, ModelCard]:
    """Network for the classes ``labels`` and its card, with the paper's options.

    ``init`` is a tfcseg model, or a published SegFormer or ImageNet-trained Mix Transformer, as a file or a Hugging
    Face folder. Classes with the same names keep their weights. Without ``init``, Lite0 has ImageNet's weights and a
    Mix Transformer random ones (ImageNet's in the paper; give them with ``init``).
    """
    published = init is not None and _is_published(Path(init))
    if published:
        network, card = _from_published(Path(str(init)), labels)
    else:
        network, card = start_network(backbone, labels, init, embed_dim=embed_dim)
    config = replace(card.config, defaults=PAPER_OPTIONS)
    network.config = config
    return network, replace(
        card, config=config, labels=labels, preprocessing=replace(card.preprocessing, size=short_side_px)
    )


def _is_published(path: Path) -> bool:
    """Whether another program wrote this file or folder; anything else may be the name of a model."""
    if not path.is_file():
        return path.is_dir()
    return is_pickle(path) or not read_header(path).metadata.get("format", "").startswith("tfcseg-")


def _from_published(path: Path, labels: LabelSet) -> tuple[TFCSegmenter, ModelCard]:
    """Convert a published network. Its card only names the file, which does not state the training data."""
    found = convert_pretrained(path)
    if isinstance(found, ConvertedEncoder):
        network, card = start_network(found.backbone, labels, None)
        network.load_state_dict({**network.state_dict(), **found.state_dict})
        return network, replace(card, trained_on=f"backbone: {path.resolve().name}")
    network = build_segmenter(found.config)
    network.load_state_dict(found.state_dict)
    return with_classes(network, untrained_card(found.config, found.labels, path.resolve().name), labels)
