"""Average the weights of training runs that started from the same model.

The average combines what each run learned ("model soups", Wortsman et al., ICML 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tfcseg.errors import UsageError, WeightsError
from tfcseg.weights.loading import LoadedModel, created_with, load_model, save_model
from tfcseg.weights.model_card import TEXT_LIMIT, ModelCard

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


def _shapes(model: LoadedModel) -> dict[str, torch.Size]:
    tensors = model.network.state_dict().items()
    return {name: tensor.shape for name, tensor in tensors if not name.startswith(CLASSIFIER)}


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = torch.stack([share * tensor.double() for share, tensor in zip(shares, tensors, strict=True)]).sum(0)
    return (total / sum(shares)).to(tensors[0].dtype)


def average_files(out: Path, parts: Sequence[str]) -> ModelCard:
    """Average ``parts``, each ``WEIGHTS=SHARE``, and write the file ``out``; returns its card.

    The card is that of the first file without its measurements; the description names all files. Raises UsageError for
    an invalid part, WeightsError for networks of different shapes.
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
        if _shapes(model) != _shapes(first):
            raise WeightsError(
                f"{model.card.name} has another network than {first.card.name}; average runs of one model"
            )
    total = sum(shares)
    named = [f"{model.card.name} ({share / total:.2g})" for model, share in zip(models, shares, strict=True)]
    card = replace(
        first.card,
        measured={},
        trained_on="; and ".join(dict.fromkeys(model.card.trained_on for model in models))[:TEXT_LIMIT],
        created_with=created_with(),
        description=f"mean of the weights of {', '.join(named)}"[:TEXT_LIMIT],
    )
    first.network.load_state_dict(average(models, shares))
    save_model(out, first.network, card)
    return card
