"""How right labels are on stills that people labelled: teachers and students side by side, on the same classes.

Networks know different classes, so each set is scored once per *vocabulary*: the label set of a network that takes
part. Its classes in a data set are those that the name tables give it and that occur there. Ground truth of other
classes is void; on what is left, a prediction of any other class is wrong. A network that lacks some of the classes
is scored all the same, with 0 for those, and ``is_complete`` says so.

Letters: K classes of a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, UsageError
from tfcseg.evaluation.result import percent
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
    pixel_accuracy,
)
from tfcseg.research.held_out.networks import Network, NetworkFacts, StudentNetwork, TeacherNetwork, refuse_doubles
from tfcseg.research.held_out.result import HeldOutConditions, made_by
from tfcseg.research.held_out.still_sets import StillSet, open_stills
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import open_model
from tfcseg.workers import WorkerOptions, work_through

OnProgress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with what is being done, how many stills of it are done, and of how many."""


@dataclass(frozen=True, slots=True)
class SetFacts:
    """A data set, and its classes that count in each vocabulary."""

    name: str
    stills: int
    classes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class SetScore:
    """One network on one set in one vocabulary; percentages, None where nothing could be counted."""

    miou: float | None
    pixel_accuracy: float | None
    is_complete: bool
    """Whether the network can predict every class that counts."""
    per_class: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class NetworkScores:
    """One network; ``scores[set][vocabulary]``, and per vocabulary the mean over the sets if it is complete in all."""

    network: NetworkFacts
    scores: Mapping[str, Mapping[str, SetScore]]
    mean: Mapping[str, float | None]
    to_best_teacher: Mapping[str, float]
    """Students: per vocabulary, the mean in percent of the best teacher's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StillsResult(HeldOutConditions):
    """Everything that is written about the comparison on stills."""

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
    """Score ``models`` (in mode ``image``) and ``teachers`` (.tflite files) on folders of labelled stills.

    DataError for a folder, mask or teacher that is not what it should be, or classes without a name table.
    """
    if not folders:
        raise UsageError("no set of stills is given")
    if not models and not teachers:
        raise UsageError("neither a model nor a teacher is given")
    sets = [open_stills(folder) for folder in folders]
    refuse_doubles([each.name for each in sets], "sets")
    jobs = [
        _Pile(network, index, first)
        for network in range(len(teachers) + len(models))
        for index, each in enumerate(sets)
        for first in range(0, len(each.stills), _PILE)
    ]
    make = partial(StillCounter.open, sets, models, teachers, device)
    counted = work_through(workers, make, [None, *jobs], uses_gpu=device.may_use_gpu)
    networks, facts = next(counted)
    scored = _scored_sets(sets, networks)
    counts = [[ConfusionMatrix(len(each.labels)).counts for each in sets] for _ in networks]
    for job, found in zip(jobs, counted, strict=True):
        counts[job.network][job.set] += found
        total = len(sets[job.set].stills)
        stage = f"{networks[job.network].facts.name} on {sets[job.set].name}"
        on_progress(stage, min(job.first + _PILE, total), total)
    unweighed = [_network_scores(network, scored, own) for network, own in zip(networks, counts, strict=True)]
    return StillsResult(
        sets=tuple(each.facts(own) for each, own in zip(scored, counts[0], strict=True)),
        networks=tuple(_weigh(each, unweighed) for each in unweighed),
        **facts,
    )


_PILE = 8
"""Stills that a worker takes at once."""


class _Pile(NamedTuple):
    """Some stills of a set for a network, both by their position."""

    network: int
    set: int
    first: int


class Described(NamedTuple):
    """A network, wherever it is loaded."""

    facts: NetworkFacts
    labels: LabelSet


class StillCounter:
    """Counts what networks, which are loaded once, say of stills."""

    def __init__(self, networks: Sequence[Network], scored: Sequence[_ScoredSet], facts: Mapping[str, Any]) -> None:
        self._networks, self._scored, self._facts = networks, scored, facts

    @classmethod
    def open(
        cls,
        sets: Sequence[StillSet],
        models: Sequence[str | Path],
        teachers: Sequence[str | Path],
        device: DeviceOptions,
    ) -> StillCounter:
        """Load the networks; arguments are those of `compare_stills`."""
        loaded = [open_model(model, device) for model in models]
        networks: list[Network] = [*(TeacherNetwork(Path(path)) for path in teachers), *map(StudentNetwork, loaded)]
        refuse_doubles([network.facts.name for network in networks], "networks")
        return cls(networks, _scored_sets(sets, networks), made_by(loaded))

    def __call__(self, pile: _Pile | None) -> Any:
        """(K, K + 1) pixels by class and predicted class; given nothing, what the networks are and who runs them."""
        if pile is None:
            return [Described(network.facts, network.labels) for network in self._networks], self._facts
        return self._scored[pile.set].count(self._networks[pile.network], pile.first)


def _scored_sets(sets: Sequence[StillSet], networks: Sequence[Network | Described]) -> list[_ScoredSet]:
    vocabularies = {network.labels.name: network.labels for network in networks}
    return [_ScoredSet(each, vocabularies) for each in sets]


class _ScoredSet:
    """A set with the classes that each vocabulary has in it."""

    def __init__(self, stills: StillSet, vocabularies: Mapping[str, LabelSet]) -> None:
        self.stills = stills
        self.tables = {name: translation(stills, labels) for name, labels in vocabularies.items()}

    @property
    def name(self) -> str:
        return self.stills.name

    def count(self, network: Network, first: int) -> Counts:
        """(K, K + 1) pixels by class and predicted class, over the pile of stills that begins with the ``first``."""
        table = self.tables[network.labels.name]
        confusion = ConfusionMatrix(len(self.stills.labels))
        for still in self.stills.stills[first : first + _PILE]:
            image, target = self.stills.read(still)
            labels = network.predict(image, (target.shape[0], target.shape[1]))
            confusion.update(target, np.asarray(cv2.LUT(labels, table), dtype=np.uint8))
        return confusion.counts

    def can_predict(self, vocabulary: str) -> NDArray[np.bool_]:
        """(K,) classes that a vocabulary has a name for."""
        return np.isin(np.arange(len(self.stills.labels)), self.tables[vocabulary])

    def score(self, counts: Counts, vocabulary: str, own: str) -> SetScore:
        """Score a network whose label set is called ``own`` on the classes of ``vocabulary``."""
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
        """What the set is, and what counts in it; ``counts`` are any network's."""
        occurs = counts.sum(axis=1) > 0
        names = self.stills.labels.names
        classes = {
            vocabulary: tuple(names[k] for k in np.flatnonzero(occurs & self.can_predict(vocabulary)))
            for vocabulary in self.tables
        }
        return SetFacts(self.name, len(self.stills.stills), classes)


def translation(stills: StillSet, labels: LabelSet) -> Labels:
    """(256,) predicted value -> class index that it is scored as, NO_CLASS without counterpart."""
    try:
        table = prediction_table(stills.labels, labels, None)
    except DataError as error:
        reason = str(error).split(";")[0]
        raise DataError(f"{stills.name}: {reason}; leave out the set or the network") from None
    counterparts = table[: len(labels)]
    table[: len(labels)] = stills.merged[counterparts]
    return table


def _network_scores(network: Described, sets: Sequence[_ScoredSet], counts: Sequence[Counts]) -> NetworkScores:
    own = network.labels.name
    vocabularies = sets[0].tables
    scores = {
        each.name: {vocabulary: each.score(numbers, vocabulary, own) for vocabulary in vocabularies}
        for each, numbers in zip(sets, counts, strict=True)
    }
    mean = {vocabulary: _mean([scores[each.name][vocabulary] for each in sets]) for vocabulary in vocabularies}
    return NetworkScores(network.facts, scores, mean, {})


def _mean(scores: Sequence[SetScore]) -> float | None:
    """Mean of the mIoU over the sets; None if the network lacks a class of any, or a set has no such class at all."""
    values = [score.miou for score in scores if score.is_complete and score.miou is not None]
    return Mean.of(values).value if len(values) == len(scores) else None


def _weigh(scores: NetworkScores, everyone: Sequence[NetworkScores]) -> NetworkScores:
    """The same with a student's share of the best teacher, where both have a mean."""
    if scores.network.role == "teacher":
        return scores
    shares: dict[str, float] = {}
    for vocabulary, mean in scores.mean.items():
        teachers = [each.mean[vocabulary] for each in everyone if each.network.role == "teacher"]
        best = max((value for value in teachers if value is not None), default=None)
        if best and mean is not None:
            shares[vocabulary] = 100 * mean / best
    return NetworkScores(scores.network, scores.scores, scores.mean, shares)
