"""Average the weights of runs that started from the same model.

One network then knows what each of them learnt, at the cost of one ("model soups", Wortsman et al., ICML 2022). Classes
that a model does not know do not count in their mean; the card is that of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tfcseg.errors import UsageError
from tfcseg.weights.loading import LoadedModel, load_model, save_model

CLASSIFIER = "decode_head.classifier."


def average(models: Sequence[LoadedModel], shares: Sequence[float]) -> dict[str, Tensor]:
    """Weighted mean of all tensors; the first model's classes, each the mean over the models that know it by name."""
    names = models[0].labels.names
    states = [model.network.state_dict() for model in models]
    mean = {}
    for key, first in states[0].items():
        if not first.is_floating_point():
            mean[key] = first
        elif key.startswith(CLASSIFIER):
            rows = [_class_row(models, states, shares, key, name) for name in names]
            mean[key] = torch.stack(rows)
        else:
            mean[key] = _mean([state[key] for state in states], shares)
    return mean


def _class_row(
    models: Sequence[LoadedModel],
    states: Sequence[dict[str, Tensor]],
    shares: Sequence[float],
    key: str,
    name: str,
) -> Tensor:
    known = [i for i, model in enumerate(models) if name in model.labels.names]
    return _mean([states[i][key][models[i].labels.index(name)] for i in known], [shares[i] for i in known])


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = torch.stack([share * tensor.double() for share, tensor in zip(shares, tensors, strict=True)]).sum(0)
    return (total / sum(shares)).to(tensors[0].dtype)


def average_files(out: Path, parts: Sequence[str]) -> None:
    """Average what ``parts`` name as ``WEIGHTS=SHARE``, and save it; UsageError for anything else."""
    models, shares = [], []
    for part in parts:
        path, _, share = part.rpartition("=")
        try:
            shares.append(float(share))
        except ValueError:
            path = ""
        if not path:
            raise UsageError(f"{part!r} is not WEIGHTS=SHARE")
        models.append(load_model(path, device="cpu", precision="fp32", fold=False))
    network = models[0].network
    network.load_state_dict(average(models, shares))
    save_model(out, network, models[0].card)
