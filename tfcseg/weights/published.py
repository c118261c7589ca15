"""Read facts about published weights: config.json, preprocessor_config.json, README.md, checkpoint metadata.

Since files may come from anyone, texts are cut to one printable line and numbers have bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tfcseg.errors import DataError, WeightsError
from tfcseg.labels.label_sets import ADE150, CITYSCAPES19, LabelSet, Palette, palette_for
from tfcseg.model.backbones.mix_transformer import EXPANSION, HEADS, PATCHES, REDUCTIONS, STRIDES
from tfcseg.model.config import ModelConfig
from tfcseg.spelling import one_line
from tfcseg.weights.model_card import (
    IMAGENET_PREPROCESSING,
    NAME_LIMIT,
    NOT_STATED,
    TEXT_LIMIT,
    ModelCard,
    Preprocessing,
    parse_preprocessing,
)
from tfcseg.weights.tensor_header import HEADER_LIMIT_BYTES, open_weights, read_beside

SIZE_PX = 512  # short side of a SegFormer's input if it is not stated, as in most trainings

_NUMBERED = re.compile(r"(LABEL|class)[ _]\d+")
_CACHED = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")
_FIXED = {
    "num_attention_heads": HEADS,
    "sr_ratios": REDUCTIONS,
    "patch_sizes": PATCHES,
    "strides": STRIDES,
    "mlp_ratios": [EXPANSION] * 4,
}


class Origin(NamedTuple):
    """The name of published weights, and what the README.md beside them states."""

    name: str
    trained_on: str
    licence: str


def published_origin(path: Path) -> Origin:
    """Origin of the weights file ``path``; WeightsError for an unreadable README.md."""
    readme = _front_matter(path.with_name("README.md"))
    stated = (readme.get("datasets", ""), readme.get("license_name") or readme.get("license", ""))
    return Origin(_name(path), *(one_line(text, TEXT_LIMIT) or NOT_STATED for text in stated))


def published_card(path: Path, meta: Mapping[object, object], config: ModelConfig, description: str) -> ModelCard:
    """Make the card of the SegFormer ``config`` in the file ``path`` from its ``meta`` data and the files beside it.
    Raises WeightsError for a damaged file, another network's config.json, or names that do not fit."""
    facts = read_config(path)
    named = meta.get("dataset_meta")  # mmsegmentation 1; older versions have the names at the top level
    of_classes = named if isinstance(named, Mapping) else {key.lower(): meta.get(key) for key in ("CLASSES", "PALETTE")}
    preprocessor = _read_json(path.with_name("preprocessor_config.json"))
    programs = {"transformers": facts.get("transformers_version"), "mmsegmentation": meta.get("mmseg_version")}
    if True in (preprocessor.get("do_reduce_labels"), preprocessor.get("reduce_labels")):
        description += "; values in the data set's masks are one higher than class indices"
    names = _texts(of_classes.get("classes")) or _names_in(facts)
    return ModelCard(
        **published_origin(path)._asdict(),
        config=config,
        labels=_label_set(path, names, _colours(of_classes.get("palette")), config.num_classes),
        preprocessing=_preprocessing(path, preprocessor) if preprocessor else _training_size(meta),
        measured={},
        created_with=next((one_line(f"{name} {v}", TEXT_LIMIT) for name, v in programs.items() if v), NOT_STATED),
        description=description,
    )


def read_config(path: Path) -> dict[str, object]:
    """Read the config.json beside the weights file ``path``; nothing if there is none, or not a SegFormer's. Raises
    WeightsError if it is damaged, or a network's that differs from ours."""
    config = _read_json(path.with_name("config.json"))
    if config.get("model_type") != "segformer":
        return {}
    for key, wanted in _FIXED.items():
        if key in config and config[key] != list(wanted):
            raise WeightsError(f"{path}: {key} is {str(config[key])[:60]}; only {list(wanted)} is supported")
    return config


def _label_set(path: Path, names: tuple[str, ...], palette: Palette, num_classes: int) -> LabelSet:
    """Label set with these names, else by their number: ADE20K's 150, Cityscapes' 19, or "class 0" and so on. Repeated
    names get a number, since ours must be unique."""
    assumed = {len(ADE150): ADE150, len(CITYSCAPES19): CITYSCAPES19}.get(num_classes)
    names = names or assumed or tuple(f"class {index}" for index in range(num_classes))
    if len(names) != num_classes:
        raise WeightsError(f"{path} has {num_classes} classes, label set {_name(path)!r} has {len(names)}")
    unique: list[str] = []
    for name in names:
        count = names[: len(unique)].count(name)
        unique.append(f"{name} ({count + 1})" if count else name)
    try:
        return LabelSet(_name(path), tuple(unique), palette if len(palette) == len(names) else palette_for(names))
    except DataError as error:
        raise WeightsError(f"{path}: {error}; name the classes yourself") from None


def _name(path: Path) -> str:
    """``ORG/NAME`` for a file in the cache of huggingface_hub, else the file's name, or its folder's."""
    for folder in path.parents:
        if match := _CACHED.fullmatch(folder.name):
            return one_line(f"{match['owner']}/{match['name']}", NAME_LIMIT)
    is_generic = path.stem in {"model", "pytorch_model"}
    return one_line(path.resolve().parent.name if is_generic else path.stem, NAME_LIMIT)


def _read_json(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    content = read_beside(path, "remove it or get it again")
    return content if isinstance(content, dict) else {}


def _preprocessing(path: Path, values: Mapping[str, object]) -> Preprocessing:
    """Parse a preprocessor_config.json: short side, and normalisation in units of 0…255."""
    scale: Any = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1
    mean: Any = [0, 0, 0]
    std: Any = [1, 1, 1]
    if values.get("do_normalize", True):
        mean = values.get("image_mean") or [number / 255 for number in IMAGENET_PREPROCESSING.mean]
        std = values.get("image_std") or [number / 255 for number in IMAGENET_PREPROCESSING.std]
    match values.get("size", SIZE_PX):
        case {"height": int(height), "width": int(width)}:
            size = min(height, width)
        case {"shortest_edge": int(size)} | int(size):
            pass
        case other:
            raise WeightsError(f"{path}: its preprocessor_config.json has a size of {str(other)[:60]}; correct it")
    try:
        known = {"mean": [number / scale for number in mean], "std": [number / scale for number in std]}
        return parse_preprocessing({"size": size, **known})
    except (TypeError, ValueError, ArithmeticError) as error:  # division by zero, or too large a number
        reason = one_line(str(error), 200)
        raise WeightsError(f"{path}: its preprocessor_config.json is not usable ({reason}); correct it") from None


def _training_size(meta: Mapping[object, object]) -> Preprocessing:
    """Preprocessing with the size of the training crops, from mmsegmentation's configuration text."""
    text = next((text for key in ("config", "cfg") if isinstance(text := meta.get(key), str)), "")
    found = re.search(r"crop_size\s*=\s*[(\[](\d{2,4}),\s*(\d{2,4})[)\]]", text)
    size = min(map(int, found.groups())) if found else SIZE_PX
    return replace(IMAGENET_PREPROCESSING, size=size)


def _front_matter(path: Path) -> dict[str, str]:
    """Read the front matter of a README.md of the Hugging Face hub; lists become one line."""
    if not path.is_file():
        return {}
    with open_weights(path) as file:
        text = file.read(HEADER_LIMIT_BYTES).decode(errors="replace")
    head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    entries: dict[str, str] = {}
    key = ""
    for line in head[1].splitlines() if head else ():
        if match := re.match(r"(\w+):\s*(.*)", line):
            key = match[1]
            entries[key] = match[2].strip("\"' ")
        elif item := re.match(r"\s*-\s+([\w./-]+)\s*$", line):
            entries[key] = ", ".join(filter(None, (entries.get(key, ""), item[1])))
    return entries


def _names_in(config: Mapping[str, object]) -> tuple[str, ...]:
    table = config.get("id2label")
    if not isinstance(table, dict):
        return ()
    names = _texts([table.get(str(index)) for index in range(len(table))])
    return () if all(map(_NUMBERED.fullmatch, names)) else names


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        return ()
    return tuple(one_line(text, NAME_LIMIT) for text in value)


def _colours(value: object) -> Palette:
    colours = []
    for entry in value if isinstance(value, list | tuple) else ():
        match entry:
            case [int(red), int(green), int(blue)] if {red, green, blue} <= set(range(256)):
                colours.append((red, green, blue))
            case _:
                return ()
    return tuple(colours)
