"""The paper's ablation table, with any tfcseg model and VSPW folder.

A row is the network with steps of the method left out or replaced. Only frames between keyframes change. Variants use
the network's weights without further training. As in model/tfc.py: B keyframes, T frames of each, h w grid at stride 4.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from tfcseg.errors import DataError, UsageError
from tfcseg.evaluation.evaluate import evaluate
from tfcseg.evaluation.model_source import ModelPredictions
from tfcseg.evaluation.result import Evaluation
from tfcseg.evaluation.scope import Scope
from tfcseg.evaluation.vspw import VspwDataset, open_vspw
from tfcseg.inference.network_input import network_size
from tfcseg.inference.options import checked_options
from tfcseg.metrics.scores import Mean, percent
from tfcseg.model.correlation import inconsistent_points, interpolation_weight, similarity
from tfcseg.model.decode_head import widened
from tfcseg.model.options import PAPER_OPTIONS, InferenceOptions
from tfcseg.model.tfc import Keyframe, NonKeyframes, TFCSegmenter, replace_points
from tfcseg.options import OnProgress, OnStep
from tfcseg.report.schema import ModelConditions, ModelFacts, model_conditions, model_facts
from tfcseg.research.paper import PAPER, SCORES, WITHOUT_BCE, Row, Variant, build_rows
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, open_model

Numbers: TypeAlias = Mapping[str, float | None]

logger = logging.getLogger(__name__)


class AblatedSegmenter:
    """``network`` with the steps of ``variant``, for `IntervalNetwork`."""

    def __init__(self, network: TFCSegmenter, variant: Variant) -> None:
        self._network, self._variant = network, variant
        self.image, self.added_by_half_size = network.image, network.added_by_half_size

    def keyframe(self, image: Tensor) -> tuple[Tensor, Keyframe]:
        """As `TFCSegmenter.keyframe`."""
        logits, memory = self._network.keyframe(image)
        if self._variant.level == 1:
            memory = memory._replace(level2=self._level1(self._network.backbone.encode_low(image)[0]))
        return logits, memory

    def non_keyframes(self, images: Tensor, memory: Keyframe, options: InferenceOptions) -> NonKeyframes:
        """Eqs 4 to 11 with the variant's weight, points and level."""
        network, variant, options = self._network, self._variant, self._network.completed(options)
        found = network.between(*network.backbone.encode_low(images), memory, options)
        w = similarity(found.moved(memory.level2), found.level2 if variant.level == 2 else self._level1(found.x1))
        w_hat = self._weight(w, options.threshold)
        logits = network.interpolated(found, memory, w_hat)
        points = inconsistent_points(w, options.threshold if variant.updates else -math.inf)
        if points.frame.numel():
            logits = replace_points(logits, points, network.updated(found, memory, w_hat, points))
        return NonKeyframes.of(found, logits, w, points)

    def _level1(self, x1: Tensor) -> Tensor:
        """Level 1 as vectors to compare, (B·T, D, h, w)."""
        return widened(self._network.decode_head.project(x1, 0))

    def _weight(self, w: Tensor, threshold: float) -> Tensor:
        """ŵ_t for similarities w (B·T, 1, h, w)."""
        weight = self._variant.weight
        if weight == "soft":
            return interpolation_weight(w)
        if weight == "hard":
            return (w >= threshold).to(w.dtype)
        return torch.full_like(w, float(weight))


@dataclass(frozen=True, slots=True)
class RowResult:
    """Scores of a row, and whether they changed as in the paper."""

    name: str
    title: str
    builds_on: str | None
    keyframe_interval: int
    threshold: float
    miou: float | None
    miou_all: float | None
    vc8: float | None
    vc16: float | None
    updated_fraction: float | None
    """Mean percentage of points that sparse MSDA updates between keyframes; None without frames between them."""
    paper: Mapping[str, float | None]  # the paper's numbers by the same keys, if it states them
    directions: Mapping[str, str]  # score -> ``agrees``, ``differs`` or ``unclear`` (one of the two did not change)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation(ModelConditions):
    """Content of the JSON file."""

    kind: str = "ablation"
    input: Mapping[str, Any]
    without_bce: ModelFacts | None
    options: Mapping[str, Any]
    resolution: Mapping[str, tuple[int, int]]  # (height, width) of the source and of the network's input
    rows: tuple[RowResult, ...]
    is_incomplete: bool  # data was missing
    skipped: Mapping[str, int]  # kind -> how many


def directions(row: Row, scores: Numbers, base: Numbers) -> dict[str, str]:
    """Compare the signs of the changes from ``base`` to ``scores`` with the paper's, for the scores that it states."""
    theirs, their_base = PAPER.get(row.name, {}), PAPER.get(row.builds_on or "", {})
    found = {}
    for key in SCORES:
        ours = _sign(scores.get(key), base.get(key))
        wanted = _sign(theirs.get(key), their_base.get(key))
        if ours is not None and wanted is not None:
            found[key] = "agrees" if ours == wanted else "differs" if ours * wanted else "unclear"
    return found


def _sign(number: float | None, base: float | None) -> int | None:
    """Sign of the difference, rounded to the paper's decimals (one that rounds to 0 has no direction): -1, 0 or 1."""
    if number is None or base is None:
        return None
    step = round(number - base, 1)
    return (step > 0) - (step < 0)


def ablate(
    root: str | Path,
    model: str | Path | LoadedModel = "default",
    settings: InferenceOptions = PAPER_OPTIONS,
    *,
    rows: Sequence[str] | None = None,
    without_bce: str | Path | LoadedModel | None = None,
    scope: Scope = Scope(),
    device: DeviceOptions = DeviceOptions(),
    on_progress: OnProgress = lambda stage, done, total: None,
) -> Ablation:
    """Score ``rows`` of the paper's ablation table, by default all; each changes ``settings``, by default the paper's.

    ``without_bce``: weights with the same classes, trained without L_bce. Failures raise a TfcsegError with one line.
    """
    dataset = open_vspw(root, scope.split)
    loaded = open_model(model, device)
    other = None if without_bce is None else open_model(without_bce, device)
    if other is not None and other.labels.names != loaded.labels.names:
        raise DataError(
            f"the weights without L_bce ({other.card.name}) have other classes than {loaded.card.name}; "
            "give weights that differ in L_bce only"
        )
    options = checked_options(loaded, settings)
    if not options.uses_memory:
        raise UsageError("a keyframe interval of 1 leaves no frames between keyframes; give 2 or more")
    wanted = _wanted_rows(build_rows(options), rows, has_other_weights=other is not None)
    first = next((image for name in dataset.videos[: scope.limit] for image in dataset.readable_images(name)), None)
    if first is None:
        raise dataset.no_image()
    size = (first.shape[0], first.shape[1])
    evaluations: dict[str, Evaluation] = {}
    results: list[RowResult] = []
    for row in wanted:
        used = other if other and row.name == WITHOUT_BCE else loaded
        base = _scores(evaluations[row.builds_on]) if row.builds_on in evaluations else {}
        on_done = partial(on_progress, row.title)
        evaluations[row.name], result = _score_row(dataset, scope, used, row, base=base, on_done=on_done)
        results.append(result)
    last = evaluations[wanted[-1].name]
    return Ablation(
        input={"name": dataset.root.resolve().name, **last.extent},
        without_bce=None if other is None else model_facts(other),
        options={key: value for key, value in asdict(options).items() if key not in ("mode", "latency")},
        resolution={"source": size, "network": network_size(size, options.keyframe_size)},
        rows=tuple(results),
        is_incomplete=any(evaluation.is_incomplete for evaluation in evaluations.values()),
        skipped=last.skipped_by_kind,
        **model_conditions(loaded),
    )


def _wanted_rows(known: Sequence[Row], names: Sequence[str] | None, *, has_other_weights: bool) -> list[Row]:
    """Choose rows, in the table's order; UsageError for a row that does not exist with these settings."""
    if names is None:
        return [row for row in known if row.name != WITHOUT_BCE or has_other_weights]
    if WITHOUT_BCE in names and not has_other_weights:
        raise UsageError(f"row {WITHOUT_BCE} needs weights trained without L_bce; give them with --without-bce")
    missing = set(names) - {row.name for row in known}
    if missing:
        raise UsageError(f"row {min(missing)} is the same as row tfc, or has a shorter interval; leave it out")
    return [row for row in known if row.name in names]


def _score_row(
    dataset: VspwDataset, scope: Scope, model: LoadedModel, row: Row, *, base: Numbers, on_done: OnStep
) -> tuple[Evaluation, RowResult]:
    """Score ``model`` with a row's steps left out or replaced, and compare its scores with those of ``base``."""
    if row.variant is not None:
        ablated = AblatedSegmenter(model.network, row.variant)
        model = replace(model, network=cast(TFCSegmenter, ablated))  # it has all that frames go through
    predictions = ModelPredictions(model, row.options)
    logger.info("row %s: %s", row.name, row.title, extra={"row": row.name, **asdict(row.options)})
    evaluation = evaluate(dataset.root, predictions.scored_on(dataset, scope.label_map), scope, on_done=on_done)
    scores = _scores(evaluation)
    return evaluation, RowResult(
        name=row.name,
        title=row.title,
        builds_on=row.builds_on,
        keyframe_interval=row.options.keyframe_interval,
        threshold=row.options.threshold,
        updated_fraction=None if row.variant is None else percent(Mean.of(predictions.updated_fractions).value),
        paper=PAPER.get(row.name, {}),
        directions=directions(row, scores, base),
        miou_all=evaluation.miou_all,
        **scores,
    )


def _scores(evaluation: Evaluation) -> Numbers:
    return {key: getattr(evaluation, key) for key in SCORES}
