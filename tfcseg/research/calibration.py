"""Fit a model's temperature on labelled stills, by the likelihood of their labels.

The expected calibration error, which is reported with and without it, may rise or fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tfcseg.drawing.render import shrink_labels
from tfcseg.errors import DataError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.options import OnProgress
from tfcseg.research.stills import open_stills, translation
from tfcseg.weights.loading import CALIBRATED, LoadedModel, is_ours, load_model, read_card, save_model
from tfcseg.weights.model_card import ModelCard
from tfcseg.weights.registry import read_registry, write_registry
from tfcseg.weights.tensor_file import read_tensor_file, write_tensor_file

_BINS = 15
_LEAST = 1e-6  # probability: a confident wrong label must not have infinite cost


class CalibrationMeter:
    """Counts, for each of ``temperatures`` (S,), how confident labels would be and how many of them are right."""

    def __init__(self, temperatures: NDArray[np.float64]) -> None:
        self.temperatures = temperatures
        self.count = self.right = 0  # numbers of labels added, and of those that are right
        self._gaps = np.zeros((len(temperatures), _BINS))  # sums of confidences, less the right labels
        self._log_loss = np.zeros(len(temperatures))

    def update(self, logits: NDArray[np.float32], is_right: NDArray[np.bool_]) -> None:
        """Add labels: their ``logits`` (N, K), and whether the largest names the right class (N,)."""
        self.count += len(is_right)
        self.right += int(is_right.sum())
        behind = logits - logits.max(axis=1, keepdims=True)
        for row, temperature in enumerate(self.temperatures):
            sure = 1 / np.exp(behind / temperature).sum(axis=1)
            chance = np.clip(np.where(is_right, sure, 1 - sure), _LEAST, 1)
            self._log_loss[row] -= float(np.log(chance).sum())
            bins = np.minimum((sure * _BINS).astype(np.int64), _BINS - 1)
            self._gaps[row] += np.bincount(bins, weights=sure - is_right, minlength=_BINS)

    @property
    def errors(self) -> NDArray[np.float64]:
        """(S,) expected calibration error: mean gap between confidence and accuracy over 15 bins of confidence.

        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
        """
        return np.asarray(np.abs(self._gaps).sum(axis=1) / max(1, self.count))

    @property
    def best(self) -> int:
        """Position of the temperature with the greatest likelihood."""
        return int(self._log_loss.argmin())


_TEMPERATURES = np.concatenate([[1.0], np.geomspace(0.1, 10, 93)])  # 5 % apart
_LABELS_PER_STILL = 4000


@dataclass(frozen=True, slots=True)
class Calibration:
    """Temperature and expected calibration errors (percentages), over pixels of classes that the model knows."""

    temperature: float
    error: float  # error with this temperature
    error_unfitted: float  # error with a temperature of 1
    accuracy: float
    labels: int
    stills: int
    sets: tuple[str, ...]

    def on_card(self, card: ModelCard) -> ModelCard:
        """``card`` with these values."""
        data = f"{', '.join(self.sets)}: {self.stills} stills"
        values = round(self.temperature, 4), round(self.error, 2), round(self.error_unfitted, 2), data
        return replace(card, measured={**card.measured, **dict(zip(CALIBRATED, values, strict=True))})


def calibrate(
    model: LoadedModel, folders: Sequence[str | Path], *, on_progress: OnProgress = lambda stage, done, total: None
) -> Calibration:
    """Fit the temperature of ``model`` (mode ``image``) on folders of labelled stills that it was not trained on.

    Raises DataError for invalid folders or masks, or if the model knows none of their classes.
    """
    sets = [open_stills(folder) for folder in folders]
    meter = CalibrationMeter(_TEMPERATURES)
    network = IntervalNetwork(model, checked_options(model, mode="image"))
    for each in sets:
        table = translation(each, model.labels)
        can_be_right = np.isin(np.arange(256), table[: len(model.labels)])
        can_be_right[NO_CLASS] = False
        for done, still in enumerate(each.stills, 1):
            image, target = each.read(still)
            logits = network.logits([image])[0].float().cpu().numpy()  # (K, h, w)
            wanted = shrink_labels(target, (logits.shape[1], logits.shape[2])).ravel()
            places = np.flatnonzero(can_be_right[wanted])
            places = places[:: max(1, len(places) // _LABELS_PER_STILL)]
            vectors = logits.reshape(len(logits), -1).T[places]
            meter.update(vectors, table[vectors.argmax(axis=1)] == wanted[places])
            on_progress(each.name, done, len(each.stills))
    if not meter.count:
        raise DataError(f"the model knows none of the classes in {', '.join(each.name for each in sets)}")
    best, errors = meter.best, 100 * meter.errors
    return Calibration(
        temperature=float(meter.temperatures[best]),
        error=float(errors[best]),
        error_unfitted=float(errors[0]),
        accuracy=100 * meter.right / meter.count,
        labels=meter.count,
        stills=sum(len(each.stills) for each in sets),
        sets=tuple(each.name for each in sets),
    )


def write_with_card(weights: Path, target: Path, change: Callable[[ModelCard], ModelCard]) -> None:
    """Copy the file ``weights`` to ``target`` with a changed card, and update a registry beside it.

    Raises WeightsError and OutputError, as in reading and writing weights.
    """
    content = read_registry(target.parent)
    card = change(read_card(weights))
    if is_ours(weights):
        sha256 = write_tensor_file(target, read_tensor_file(weights).tensors, card.to_metadata())
    else:
        network = load_model(weights, device="cpu", precision="fp32", fold=False).network
        network.config = card.config
        sha256 = save_model(target, network, card, dtype=torch.float32)
    for entry in content["models"].values():
        if entry["file"] == target.name:
            entry["sha256"] = sha256
            write_registry(target.parent, content)
