"""Score teachers and students on labelled stills, on the same classes.

Since networks know different classes, each set is scored once per *vocabulary*, the label set of one of the networks.
Name tables give its classes in a data set. Ground truth of other classes is void; elsewhere, predictions of other
classes are wrong. Networks that lack some of the classes score 0 on them, and ``is_complete`` is false.

Shapes: K classes of a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.evaluation.scoring import prediction_table
from tfcseg.labels.label_sets import LabelSet
from tfcseg.metrics.scores import (
    ConfusionMatrix,
    Counts,
    Labels,
    Mean,
    class_iou,
    mean_iou,
    only_targets,
    percent,
    pixel_accuracy,
)
from tfcseg.options import OnProgress
from tfcseg.research.held_out.networks import (
    HeldOutConditions,
    Network,
    NetworkFacts,
    StudentNetwork,
    TeacherNetwork,
    made_by,
    refuse_doubles,
)
from tfcseg.research.held_out.still_sets import StillSet, open_stills
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import open_model
from tfcseg.workers import WorkerOptions, work_through


@dataclass(frozen=True, slots=True)
class SetFacts:
    """A data set, and the scored classes by vocabulary."""

    name: str
    stills: int
    classes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class SetScore:
    """A network's scores on a set in a vocabulary, in percent; None without pixels."""

    miou: float | None
    pixel_accuracy: float | None
    is_complete: bool
    """Whether the network knows all scored classes."""
    per_class: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class NetworkScores:
    """A network's ``scores[set][vocabulary]``, and means over sets by vocabulary if all are complete."""

    network: NetworkFacts
    scores: Mapping[str, Mapping[str, SetScore]]
    mean: Mapping[str, float | None]
    to_best_teacher: Mapping[str, float]
    """A student's mean in percent of the best teacher's, by vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StillsResult(HeldOutConditions):
    """Content of the JSON file."""

    kind: str = "stills"
    sets: tuple[SetFacts, ...]
    networks: tuple[NetworkScores, ...]


def compare_stills(
    folders: Sequence[str | Path],
    models: Sequence[str | Path] = ("default",),
    teachers: Sequence[str | Path] = (),
    *,
    device: DeviceOptions = DeviceOptions(),
    workers: WorkerOptions = WorkerOptions(),
    on_progress: OnProgress = lambda stage, done, total: None,
) -> StillsResult:
    """Score ``models`` (mode ``image``) and ``teachers`` (.tflite files) on folders of labelled stills.

    Raises DataError for invalid folders, masks or teachers, or classes without a name table.
    """
    sets = [open_stills(folder) for folder in folders]
    refuse_doubles([each.name for each in sets], "sets")
    jobs = [
        _Pile(network, index, first)
        for network in range(len(teachers) + len(models))
        for index, each in enumerate(sets)
        for first in range(0, len(each.stills), _PILE)
    ]
    make = partial(_open_networks, sets, models, teachers, device)
    counted = work_through(workers, make, [None, *jobs], uses_gpu=device.may_use_gpu)
    networks, facts = next(counted)
    scored = _scored_sets(sets, [labels for _, labels in networks])
    counts = [[ConfusionMatrix(len(each.labels)).counts for each in sets] for _ in networks]
    for job, found in zip(jobs, counted, strict=True):
        counts[job.network][job.set] += found
        total = len(sets[job.set].stills)
        stage = f"{networks[job.network][0].name} on {sets[job.set].name}"
        on_progress(stage, min(job.first + _PILE, total), total)
    return StillsResult(
        sets=tuple(each.facts(own) for each, own in zip(scored, counts[0], strict=True)),
        networks=tuple(_network_scores(networks, scored, counts)),
        **facts,
    )


_PILE = 8
"""Stills per job of a worker."""


class _Pile(NamedTuple):
    """Indices of network, set and first still of a job."""

    network: int
    set: int
    first: int


def _open_networks(
    sets: Sequence[StillSet], models: Sequence[str | Path], teachers: Sequence[str | Path], device: DeviceOptions
) -> Callable[[_Pile | None], Any]:
    """Load the networks; arguments are those of `compare_stills`.

    Returns a function that counts (K, K + 1) pixels by class and predicted class; for None, it returns the facts and
    classes of the networks, and conditions.
    """
    loaded = [open_model(model, device) for model in models]
    networks: list[Network] = [*(TeacherNetwork(Path(path)) for path in teachers), *map(StudentNetwork, loaded)]
    refuse_doubles([network.facts.name for network in networks], "networks")
    scored = _scored_sets(sets, [network.labels for network in networks])

    def work(pile: _Pile | None) -> Any:
        if pile is None:
            return [(network.facts, network.labels) for network in networks], made_by(loaded)
        return scored[pile.set].count(networks[pile.network], pile.first)

    return work


def _scored_sets(sets: Sequence[StillSet], known: Sequence[LabelSet]) -> list[_ScoredSet]:
    vocabularies = {labels.name: labels for labels in known}
    return [_ScoredSet(each, vocabularies) for each in sets]


class _ScoredSet:
    """A set with the classes of each vocabulary."""

    def __init__(self, stills: StillSet, vocabularies: Mapping[str, LabelSet]) -> None:
        self.stills = stills
        self.tables = {name: translation(stills, labels) for name, labels in vocabularies.items()}

    def count(self, network: Network, first: int) -> Counts:
        """Count (K, K + 1) pixels by class and predicted class, over the stills of a job."""
        table = self.tables[network.labels.name]
        confusion = ConfusionMatrix(len(self.stills.labels))
        for still in self.stills.stills[first : first + _PILE]:
            image, target = self.stills.read(still)
            labels = network.predict(image, (target.shape[0], target.shape[1]))
            confusion.update(target, np.asarray(cv2.LUT(labels, table), dtype=np.uint8))
        return confusion.counts

    def can_predict(self, vocabulary: str) -> NDArray[np.bool_]:
        """(K,) whether a vocabulary has each class."""
        return np.isin(np.arange(len(self.stills.labels)), self.tables[vocabulary])

    def score(self, counts: Counts, vocabulary: str, own: str) -> SetScore:
        """Score a network with label set ``own`` on the classes of ``vocabulary``."""
        kept = self.can_predict(vocabulary)
        of_kept = only_targets(counts, kept)
        occurs = of_kept.sum(axis=1) > 0
        iou = class_iou(of_kept)
        return SetScore(
            miou=percent(mean_iou(of_kept)),
            pixel_accuracy=percent(pixel_accuracy(of_kept)),
            is_complete=not np.any(occurs & ~self.can_predict(own)),
            per_class={self.stills.labels.names[k]: percent(float(iou[k])) for k in np.flatnonzero(occurs)},
        )

    def facts(self, counts: Counts) -> SetFacts:
        """Facts about the set; ``counts`` are those of any network."""
        occurs = counts.sum(axis=1) > 0
        names = self.stills.labels.names
        classes = {
            vocabulary: tuple(names[k] for k in np.flatnonzero(occurs & self.can_predict(vocabulary)))
            for vocabulary in self.tables
        }
        return SetFacts(self.stills.name, len(self.stills.stills), classes)


def translation(stills: StillSet, labels: LabelSet) -> Labels:
    """(256,) predicted value -> class index for scoring; NO_CLASS without counterpart."""
    try:
        table = prediction_table(stills.labels, labels, None)
    except DataError as error:
        reason = str(error).split(";")[0]
        raise DataError(f"{stills.name}: {reason}; leave out the set or the network") from None
    counterparts = table[: len(labels)]
    table[: len(labels)] = stills.merged[counterparts]
    return table


def _network_scores(
    networks: Sequence[tuple[NetworkFacts, LabelSet]], sets: Sequence[_ScoredSet], counts: Sequence[Sequence[Counts]]
) -> list[NetworkScores]:
    """Scores of all networks, from their ``counts`` on each set; students are compared with the best teacher."""
    vocabularies = list(sets[0].tables)
    found: list[NetworkScores] = []
    for (facts, labels), own in zip(networks, counts, strict=True):
        scores = {
            each.stills.name: {name: each.score(numbers, name, labels.name) for name in vocabularies}
            for each, numbers in zip(sets, own, strict=True)
        }
        mean = {name: _mean([of[name] for of in scores.values()]) for name in vocabularies}
        found.append(NetworkScores(facts, scores, mean, {}))
    teachers = [each for each in found if each.network.role == "teacher"]
    best = {name: max((each.mean[name] or 0 for each in teachers), default=0) for name in vocabularies}
    for number, each in enumerate(found):
        if each.network.role == "student":
            known = {name: mean for name, mean in each.mean.items() if best[name] and mean is not None}
            shares = {name: 100 * mean / best[name] for name, mean in known.items()}
            found[number] = replace(each, to_best_teacher=shares)
    return found


def _mean(scores: Sequence[SetScore]) -> float | None:
    """Mean mIoU over sets; None if a score is incomplete or missing."""
    values = [score.miou for score in scores if score.is_complete and score.miou is not None]
    return Mean.of(values).value if len(values) == len(scores) else None
