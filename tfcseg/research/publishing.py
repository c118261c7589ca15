"""Average trained models, add a second network to one, measure it, fill in its card, and add it to a registry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfcseg.errors import UsageError, WeightsError
from tfcseg.evaluation.evaluate import evaluate
from tfcseg.evaluation.model_source import ModelPredictions
from tfcseg.evaluation.predictions import Predictions
from tfcseg.evaluation.scope import Scope
from tfcseg.files import make_folder
from tfcseg.inference.options import checked_options, describe_method
from tfcseg.labels.label_sets import ADE31, VOC21
from tfcseg.model.config import ModelConfig
from tfcseg.model.options import MODEL_FIELDS, InferenceOptions
from tfcseg.model.things import Things
from tfcseg.research.paper import SCORES
from tfcseg.spelling import one_line
from tfcseg.training.networks import THINGS_OF, trained_on_without_things
from tfcseg.training.teachers import load_things
from tfcseg.training.truth import VOC_NAMES
from tfcseg.weights.loading import CALIBRATED, LoadedModel, created_with, load_model, save_model
from tfcseg.weights.model_card import TEXT_LIMIT, ModelCard, is_card_name, joined_origin
from tfcseg.weights.registry import read_registry, write_registry

DRAWN_BETTER = ("person", "car")  # rivals in the second network: the image network finds and draws them better

_CENTRED = (126.5, 128.5)  # between these are mean and std of pixels that become −1…1


def measure(
    weights: Path, root: Path, split: str = "val", *, defaults: InferenceOptions = InferenceOptions()
) -> dict[str, float | str]:
    """Score a weights file on a VSPW folder in modes ``image`` and ``tfc``, for the card's ``measured``.

    mIoU is over the classes that the model knows, in percent. ``defaults`` are the model's future ones (see `publish`).
    """
    model = load_model(weights)
    model = replace(model, card=replace(model.card, config=_with_defaults(model.card.config, defaults)))
    used = checked_options(model)
    measured: dict[str, float | str] = {
        "data": f"{root.resolve().name}/{split}",
        "settings": f"short side {used.size} px, {describe_method(used)}, "
        f"{model.device}, {str(model.precision).removeprefix('torch.')}",
    }
    for mode in ("image", "tfc"):
        predictions = Predictions(ModelPredictions(model, checked_options(model, mode=mode)), model.labels)
        result = evaluate(root, predictions, Scope(split))
        for score in SCORES:
            value = getattr(result, score)
            if value is not None:
                measured[f"{mode}_{score}"] = round(value, 2)
    return measured


def publish(
    weights: Path,
    folder: Path,
    *,
    name: str,
    description: str,
    measured: dict[str, float | str],
    default: bool,
    defaults: InferenceOptions = InferenceOptions(),
    trained_on: str | None = None,
    licence: str | None = None,
) -> Path:
    """Write ``<folder>/<name>.safetensors`` with its card filled in, and add it to ``<folder>/models.json``.

    The first model of a registry is its default, later ones if ``default``. What is given by ``defaults``,
    ``trained_on`` and ``licence`` replaces the model's own. Raises WeightsError and OutputError.
    """
    content = check_registry(folder, name)
    make_folder(folder)
    model = load_model(weights, device="cpu", precision="fp32", fold=False)
    fitted = {key: value for key, value in model.card.measured.items() if key in CALIBRATED}
    config = model.network.config = _with_defaults(model.card.config, defaults)
    card = replace(
        model.card,
        name=name,
        config=config,
        description=one_line(description, TEXT_LIMIT),
        measured={**fitted, **measured},
        trained_on=one_line(trained_on or model.card.trained_on, TEXT_LIMIT),
        licence=one_line(licence or model.card.licence, TEXT_LIMIT),
    )
    target = folder / f"{name}.safetensors"
    sha256 = save_model(target, model.network, card, dtype=torch.float16)
    content["models"][name] = {"file": target.name, "sha256": sha256}
    if default:
        content["default"] = name
    write_registry(folder, content)
    return target


def _with_defaults(config: ModelConfig, given: InferenceOptions) -> ModelConfig:
    """Make the ``given`` options the model's defaults."""
    chosen = given.completed_by(config.defaults)
    used = {field.name: getattr(chosen, field.name) for field in MODEL_FIELDS}
    return replace(config, defaults=replace(config.defaults, **used))


def check_registry(folder: Path, name: str) -> dict[str, Any]:
    """Read the registry of ``folder`` and check that a model can have this ``name``; WeightsError otherwise."""
    if Path(name).name != name or not is_card_name(name):
        raise WeightsError(f"{name!r} cannot be the name of a model; use letters, digits, - and _")
    return {"default": name, **read_registry(folder)}


def add_things(weights: Path, source: str | Path, out: Path) -> ModelCard:
    """Write the model ``weights`` with a second network to ``out``; returns its card.

    ``source``: a TensorFlow Lite file of DeepLabv3 with MobileNetV2 and Pascal VOC's classes, or a model that has such
    a network. Its things are used that the model has as classes; `DRAWN_BETTER` are rivals. Things that ADE20K's
    teachers do not know are doubted, since models learn them from this network. Raises WeightsError if the model's
    pixels are not −1…1, it has none of the classes, or the source has no second network, DataError for another file.
    """
    model = load_model(weights, device="cpu", precision="fp32", fold=False)
    numbers, (low, high) = model.card.preprocessing, _CENTRED
    if not all(low <= value <= high for value in (*numbers.mean, *numbers.std)):
        raise WeightsError(f"{model.card.name} has a mean of {numbers.mean}; the second network needs about 127.5")
    names, found, licence = _read_things(source)
    known = [at for at, name in enumerate(names) if name in model.labels.names]
    rivals = [at for at in known if names[at] in DRAWN_BETTER]
    used = [at for at in known if at not in rivals]
    if not used:
        raise WeightsError(f"{model.card.name} has no class that is a thing of {source}")
    network = model.network
    network.things = Things(len(used), rivals=len(rivals))
    state = found.state_dict()
    chosen = {name: state[name][[0, *rivals, *used]] for name in state if name.startswith("classifier.")}
    network.things.load_state_dict({**state, **chosen})
    things = tuple(model.labels.index(names[at]) for at in used)
    config = network.config = replace(
        network.config,
        things=things,
        doubted=tuple(number for number in things if model.labels.names[number] not in ADE31.names),
        rivals=tuple(model.labels.index(names[at]) for at in rivals),
        defaults=replace(network.config.defaults, things_share=1.0),
    )
    card = replace(
        model.card,
        config=config,
        measured={},
        trained_on=joined_origin((trained_on_without_things(model.card), Path(source).stem), THINGS_OF),
        licence=_all_of((model.card.licence, licence)),
        created_with=created_with(),
    )
    save_model(out, network, card, dtype=torch.float16)
    return card


def _read_things(source: str | Path) -> tuple[list[str], Things, str]:
    """The names of a second network's outputs, of which the first is the background, the network, and its licence."""
    if Path(source).suffix == ".tflite":
        network = Things(len(VOC21) - 1)
        load_things(network, source)
        return [VOC_NAMES.get(name, name) for name in VOC21], network, ""
    model = load_model(source, device="cpu", precision="fp32", fold=False)
    if model.network.things is None:
        raise WeightsError(f"{model.card.name} has no second network; give tfc-mosaic, or a .tflite file")
    return [VOC21[0], *(name for name, _ in _outputs(model))], model.network.things, model.card.licence


def _all_of(texts: Iterable[str]) -> str:
    """Entry for the card of a model that was made of several, each of which has one."""
    return joined_origin(dict.fromkeys(texts), "; and ")


CLASSIFIER = "decode_head.classifier."


def average(models: Sequence[LoadedModel], shares: Sequence[float]) -> dict[str, Tensor]:
    """Weighted mean of all tensors, in the first model's classes, each averaged over the models that have it."""
    names = models[0].labels.names
    states = [model.network.state_dict() for model in models]
    mean = {}
    for key, first in states[0].items():
        if not first.is_floating_point():
            mean[key] = first
        elif key.startswith(CLASSIFIER):
            rows = []
            for name in names:
                known = [i for i, model in enumerate(models) if name in model.labels.names]
                own = [states[i][key][models[i].labels.index(name)] for i in known]
                rows.append(_mean(own, [shares[i] for i in known]))
            mean[key] = torch.stack(rows)
        else:
            mean[key] = _mean([state[key] for state in states], shares)
    return mean


def _outputs(model: LoadedModel) -> list[tuple[str, str]]:
    """Names of the second network's rivals and things, and what each is."""
    config = model.card.config
    kinds = [(number, "rival") for number in config.rivals]
    kinds += [(number, "doubted" if number in config.doubted else "thing") for number in config.things]
    return [(model.labels.names[number], kind) for number, kind in kinds]


def _shapes(model: LoadedModel) -> dict[str, torch.Size]:
    tensors = model.network.state_dict().items()
    return {name: tensor.shape for name, tensor in tensors if not name.startswith(CLASSIFIER)}


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = torch.stack([share * tensor.double() for share, tensor in zip(shares, tensors, strict=True)]).sum(0)
    return (total / sum(shares)).to(tensors[0].dtype)


def average_files(out: Path, parts: Sequence[str]) -> ModelCard:
    """Average ``parts``, each ``WEIGHTS=SHARE``, and write the file ``out``; returns its card.

    The card is that of the first file without its measurements; data and licences are those of all, and the description
    names them. Raises UsageError for an invalid part, WeightsError for networks of different shapes.
    """
    models, shares = [], []
    for part in parts:
        path, _, share = part.rpartition("=")
        try:
            shares.append(float(share))
        except ValueError:
            path = ""
        if not path or not 0 < shares[-1] < float("inf"):
            raise UsageError(f"{part!r} is not WEIGHTS=SHARE, with a share above 0")
        models.append(load_model(path, device="cpu", precision="fp32", fold=False))
    first = models[0]
    for model in models:
        if _shapes(model) != _shapes(first) or _outputs(model) != _outputs(first):
            raise WeightsError(
                f"{model.card.name} has another network than {first.card.name}, or another second one; average runs of "
                "one model"
            )
    total = sum(shares)
    named = [f"{model.card.name} ({share / total:.2g})" for model, share in zip(models, shares, strict=True)]
    card = replace(
        first.card,
        measured={},
        trained_on=_all_of(model.card.trained_on for model in models),
        licence=_all_of(model.card.licence for model in models),
        created_with=created_with(),
        description=f"mean of the weights of {', '.join(named)}"[:TEXT_LIMIT],
    )
    first.network.load_state_dict(average(models, shares))
    save_model(out, first.network, card)
    return card
