"""Adding a trained model to a registry: measured, with its card filled in, beside ``models.json``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from tfcseg.errors import WeightsError
from tfcseg.evaluation.evaluate import evaluate
from tfcseg.evaluation.model_source import ModelPredictions
from tfcseg.inference import checked_options
from tfcseg.outputs import replace_atomically
from tfcseg.tensor_file import parse_json
from tfcseg.weights import REGISTRY, load_model, save_model

SCORES = ("miou", "vc8", "vc16")


def measure(weights: Path, root: Path, split: str = "val", *, correlation: str | None = None) -> dict[str, float | str]:
    """Scores of a weights file on a VSPW folder, in ``image`` and ``tfc``: what the card's ``measured`` says.

    mIoU is over the classes that the model can predict, percentages 0 to 100, VC as in protocol ``vspw``.
    """
    model = load_model(weights)
    used = checked_options(model, correlation=correlation)
    measured: dict[str, float | str] = {
        "data": f"{root.resolve().name}/{split}",
        "settings": f"short side {used.size} px, interval {used.keyframe_interval}, threshold {used.threshold:g}, "
        f"{used.correlation} correlation, {model.device}, {str(model.precision).removeprefix('torch.')}",
    }
    for mode in ("image", "tfc"):
        predictions = ModelPredictions(model, checked_options(model, mode=mode, correlation=correlation))
        result = evaluate(root, predictions, split=split, mode=mode, model_labels=model.labels)
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
    correlation: str | None = None,
    trained_on: str | None = None,
    licence: str | None = None,
) -> Path:
    """Write ``<folder>/<name>.safetensors`` with its card filled in and enter it into ``<folder>/models.json``.

    The first model of a registry is its default, later ones if ``default``. ``correlation`` sets what the model uses
    unless told otherwise; ``trained_on`` and ``licence`` replace what training wrote. WeightsError and OutputError as in reading and writing weights.
    """
    if Path(name).name != name or not name:
        raise WeightsError(f"{name!r} cannot be the name of a model; use letters, digits, - and _")
    model = load_model(weights, device="cpu", precision="fp32", fold=False)
    config = replace(model.card.config, correlation=correlation or model.card.config.correlation)
    model.network.config = config
    card = replace(
        model.card,
        name=name,
        config=config,
        description=description,
        measured=measured,
        trained_on=trained_on or model.card.trained_on,
        licence=licence or model.card.licence,
    )
    target = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = save_model(target, model.network, card, dtype=torch.float16)
    registry = folder / REGISTRY
    content = parse_json(registry.read_text(encoding="utf-8")) if registry.exists() else {"default": name, "models": {}}
    if not isinstance(content, dict) or not isinstance(content.get("models"), dict):
        raise WeightsError(f"{registry} is not a registry of models; mend it or choose another folder")
    content["models"][name] = {"file": target.name, "sha256": sha256}
    if default:
        content["default"] = name
    with replace_atomically(registry) as partial:
        partial.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return target
