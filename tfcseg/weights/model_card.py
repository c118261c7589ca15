"""The card in a weights file: the network's numbers, its classes, preprocessing and origin.

The card is text in the file's header. Since files may come from anyone, types and bounds are checked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tfcseg.errors import DataError, UsageError, WeightsError
from tfcseg.files import parse_json
from tfcseg.labels.label_sets import NO_CLASS, LabelSet
from tfcseg.model.config import EVIDENCE, ModelConfig
from tfcseg.model.options import MODEL_FIELDS, PAPER_OPTIONS
from tfcseg.model.tfc import BACKBONES
from tfcseg.options import Declared
from tfcseg.spelling import one_line

FORMAT = "tfcseg-1"

NAME_LIMIT = 100
TEXT_LIMIT = 2000
NOT_STATED = "not stated"
_TEXTS = {"name": NAME_LIMIT} | dict.fromkeys(("trained_on", "licence", "created_with", "description"), TEXT_LIMIT)
_OBJECTS = ("config", "labels", "preprocessing", "measured")
_CONFIG_BOUNDS = {
    "embed_dim": (1, 2048),
    "num_classes": (1, NO_CLASS),
    "heads": (1, 64),
    "points": (1, 64),
    "ffn_dim": (1, 16384),
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an RGB image becomes network input: short side ``size`` in pixels, then (value - mean) / std per channel.
    ``mean`` and ``std`` are in units of 0…255."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET_PREPROCESSING = Preprocessing(480, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""ImageNet statistics, used to pretrain SegFormer's and most other backbones, and the paper's input size."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Facts in a weights file besides tensors. ``measured`` maps a metric's name to its value or a remark."""

    name: str
    config: ModelConfig
    labels: LabelSet
    preprocessing: Preprocessing
    trained_on: str
    licence: str
    measured: Mapping[str, float | str]
    created_with: str
    description: str

    def to_metadata(self) -> dict[str, str]:
        """Return the text entries for a file's header."""
        config = dataclasses.asdict(self.config)
        defaults = config.pop("defaults")
        objects = {
            "config": config | {field.name: defaults[field.name] for field in MODEL_FIELDS},
            "labels": dataclasses.asdict(self.labels),
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "measured": dict(self.measured),
        }
        texts = {key: getattr(self, key) for key in _TEXTS}
        return {"format": FORMAT, **texts, **{key: json.dumps(value) for key, value in objects.items()}}


def parse_card(metadata: Mapping[str, str], path: Path) -> ModelCard:
    """Parse the card in the metadata of the file at ``path``; WeightsError names a missing or invalid entry."""
    found = metadata.get("format", "")
    if found != FORMAT:
        raise WeightsError(f"{path} is of format {found[:60]!r}, not {FORMAT!r}; make it again with this version")
    try:
        _require_keys(metadata, {"format", *_TEXTS, *_OBJECTS})
        config = _entry(metadata, "config", _config)
        labels = _entry(metadata, "labels", _labels)
        if len(labels) != config.num_classes:
            raise ValueError(f"{len(labels)} labels for {config.num_classes} classes")  # noqa: TRY301
        return ModelCard(
            config=config,
            labels=labels,
            preprocessing=_entry(metadata, "preprocessing", parse_preprocessing),
            measured=_entry(metadata, "measured", _measured),
            **{key: _text(key, metadata[key], limit) for key, limit in _TEXTS.items()},
        )
    except ValueError as error:
        raise WeightsError(f"{path}: its card is damaged ({one_line(str(error), 200)}); get it again") from None


def is_card_name(name: str) -> bool:
    """Whether a card can hold the name."""
    return 0 < len(name) <= NAME_LIMIT and name.isprintable()


def refuse_name(name: str | None) -> None:
    """Raise UsageError for a name that fits into no card."""
    if name is not None and not is_card_name(name):
        raise UsageError(f"--name must be one line of 1 to {NAME_LIMIT} characters")


def joined_origin(parts: Iterable[str], link: str = "; then ") -> str:
    """Join what is known of a model's origin to a line for its card; of one that is too long, the end is kept."""
    line = link.join(filter(None, parts))
    return one_line(line, len(line))[-TEXT_LIMIT:]


def _entry(metadata: Mapping[str, str], key: str, parse: Callable[[dict[str, object]], _T]) -> _T:
    """Parse a JSON object in the metadata; the message of a ValueError begins with its key."""
    try:
        value = parse_json(metadata[key])
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004, TRY301  # all errors of a card are ValueErrors
        return parse(value)
    except (ValueError, DataError) as error:
        raise ValueError(f"{key}: {error}") from None


def _config(values: dict[str, object]) -> ModelConfig:
    backbone, repairs = values.pop("backbone", None), values.pop("repairs", True)
    if not isinstance(backbone, str) or backbone not in BACKBONES:
        raise ValueError(f"unknown backbone {backbone!r}")
    if not isinstance(repairs, bool):
        raise ValueError(f"repairs must be true or false, not {repairs!r}")  # noqa: TRY004  # as above
    defaults = {field.name: _default(field, values.pop(field.name)) for field in MODEL_FIELDS if field.name in values}
    curve = _sequence("evidence", values.pop("evidence", list(EVIDENCE)), len(EVIDENCE))
    things, doubted, rivals = (
        tuple(_integer(key, value, 0, NO_CLASS) for value in _sequence(key, values.pop(key, [])))
        for key in ("things", "doubted", "rivals")
    )
    _require_keys(values, set(_CONFIG_BOUNDS))
    config = ModelConfig(
        backbone=backbone,
        defaults=dataclasses.replace(PAPER_OPTIONS, **defaults),
        repairs=repairs,
        evidence=tuple(_number("evidence", value, 0, 1) for value in curve),
        things=things,
        doubted=doubted,
        rivals=rivals,
        **{key: _integer(key, values[key], *bounds) for key, bounds in _CONFIG_BOUNDS.items()},
    )
    if (greatest := max((*things, *rivals), default=0)) >= config.num_classes:
        raise ValueError(f"things and rivals are classes 0 to {config.num_classes - 1}, not {greatest}")
    if double := set(things) & set(rivals):
        raise ValueError(f"class {min(double)} cannot be a thing and a rival")
    if (config.defaults.things_share or rivals) and not things:
        raise ValueError("things_share and rivals need things")
    if unknown := set(doubted) - set(things):
        raise ValueError(f"doubted things must be things, not {min(unknown)}")
    if config.embed_dim % config.heads:
        raise ValueError(f"embed_dim {config.embed_dim} is not a multiple of {config.heads} heads")
    return config


def _default(field: Declared, value: object) -> Any:
    option = field.option
    if option.choices:
        if value not in option.choices:
            raise ValueError(f"unknown {field.name} {value!r}")
        return value
    check = _integer if field.type is int else _number
    return check(field.name, value, option.low or 0, option.high or 0)


def _labels(values: dict[str, object]) -> LabelSet:
    _require_keys(values, {"name", "names", "palette"})
    names = [_text("class name", name, NAME_LIMIT) for name in _sequence("names", values["names"])]
    palette = []
    for colour in _sequence("palette", values["palette"]):
        red, green, blue = (_integer("colour", value, 0, 255) for value in _sequence("colour", colour, 3))
        palette.append((red, green, blue))
    return LabelSet(_text("name", values["name"], NAME_LIMIT), tuple(names), tuple(palette))


def parse_preprocessing(values: dict[str, object]) -> Preprocessing:
    """Parse preprocessing from JSON types; ValueError for missing values or values out of bounds."""
    _require_keys(values, {"size", "mean", "std"})
    return Preprocessing(
        size=_integer("size", values["size"], 32, 4096),
        mean=tuple(_number("mean", value, -1000, 1000) for value in _sequence("mean", values["mean"], 3)),
        std=tuple(_number("std", value, 0.001, 1000) for value in _sequence("std", values["std"], 3)),
    )


def _measured(values: dict[str, object]) -> dict[str, float | str]:
    return {
        _text("metric", key, NAME_LIMIT): _text(key, value, TEXT_LIMIT)
        if isinstance(value, str)
        else _number(key, value, -1e15, 1e15)
        for key, value in values.items()
    }


def _require_keys(values: Mapping[str, object], wanted: set[str]) -> None:
    for key in sorted(wanted - values.keys()):
        raise ValueError(f"{key} is missing")
    for key in sorted(values.keys() - wanted):
        raise ValueError(f"unknown entry {key!r}")


def _text(key: str, value: object, limit: int) -> str:
    """Check for one line of at most ``limit`` characters without control characters, which is safe to print."""
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise ValueError(f"{key!r} must be a line of at most {limit} characters, not {value!r}")
    return value


def _integer(key: str, value: object, low: float, high: float) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{key} must be a whole number, not {value!r}")  # noqa: TRY004  # as above
    return int(_number(key, value, low, high))


def _number(key: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{key!r} must be a number from {low} to {high}, not {value!r}")
    return value


def _sequence(key: str, value: object, length: int | None = None) -> list[object]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise ValueError(f"{key} must be a list{'' if length is None else f' of {length}'}, not {value!r}")
    return value
