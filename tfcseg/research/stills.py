"""Score teachers and students on labelled stills, on the same classes.

Since networks know different classes, each set is scored once per *vocabulary*, the label set of one of the networks.
Name tables give its classes in a data set. Ground truth of other classes is void; elsewhere, predictions of other
classes are wrong. Networks that lack some of the classes score 0 on them, and ``is_complete`` is false.

A set is a folder::

    SET/  images/<name>.jpg   masks/<name>.png (value = id)   classes.json here or in the folder above: {id: name}

Ids 0 and 255 are void, whatever their names. Shapes: H W image, K classes of a data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tfcseg.errors import DataError
from tfcseg.evaluation.evaluate import prediction_table
from tfcseg.labels.label_sets import NO_CLASS, LabelSet, distinct_palette, merged_classes
from tfcseg.media.frames import Image
from tfcseg.media.images import read_image
from tfcseg.media.masks import read_mask
from tfcseg.media.source import IMAGE_SUFFIXES
from tfcseg.metrics.scores import (
    ConfusionMatrix,
    Labels,
    Mean,
    class_iou,
    mean_iou,
    only_targets,
    percent,
    pixel_accuracy,
)
from tfcseg.options import OnProgress
from tfcseg.research.networks import (
    HeldOutConditions,
    Network,
    NetworkFacts,
    made_by,
    refuse_doubles,
    student_network,
    teacher_network,
)
from tfcseg.training.truth import CLASSES, find_classes, read_classes
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import open_model

_VOID_IDS = (0, 255)
_UNNAMED = 254  # marks values that classes.json does not name; sets have fewer classes than this


@dataclass(frozen=True, slots=True, eq=False)
class StillSet:
    """A folder of labelled stills, some of whose classes are merged for scoring (``merged_classes``)."""

    name: str  # names of the folder and the one above: ``coco/test``
    labels: LabelSet  # classes in the order of their ids, including merged ones
    merged: Labels  # (256,) class index -> class index for scoring; NO_CLASS stays
    values: Labels  # (256,) value of a mask -> class index for scoring
    stills: tuple[Path, ...]  # the images

    def read(self, still: Path) -> tuple[Image, Labels]:
        """Read (H, W, 3) image and (H', W') target, NO_CLASS = void; DataError for a value without a name."""
        mask = _mask_of(still)
        raw = read_mask(mask)
        target = np.asarray(cv2.LUT(raw, self.values), dtype=np.uint8)
        is_unnamed = target == _UNNAMED
        if is_unnamed.any():
            raise DataError(f"{mask}: value {raw[is_unnamed].min()} is not named in {CLASSES}")
        return read_image(still), target


def open_stills(folder: str | Path) -> StillSet:
    """List the stills of a folder; DataError says what is missing."""
    folder = Path(folder)
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise DataError(f"{folder}: has no folder {part}; labelled stills have images/, masks/ and {CLASSES}")
    file = find_classes(folder)
    if file is None:
        raise DataError(f"{folder}: has no {CLASSES}, also not above; it names the masks' values, {{id: name}}")
    ids = _ids_by_name(file)
    path = folder.resolve()
    name = f"{path.parent.name}/{path.name}".lstrip("/")
    labels = LabelSet(name, tuple(ids), distinct_palette(len(ids)))
    stands_for = merged_classes(labels)
    scored_as = [labels.index(stands_for.get(own, own)) for own in labels.names]
    merged = np.full(256, NO_CLASS, np.uint8)
    merged[: len(ids)] = scored_as
    values = np.full(256, _UNNAMED, np.uint8)
    values[list(ids.values())] = scored_as
    values[list(_VOID_IDS)] = NO_CLASS
    return StillSet(name, labels, merged, values, _list_stills(folder))


def _ids_by_name(file: Path) -> Mapping[str, int]:
    """Read {name: id} in the order of ids, without void."""
    ids = read_classes(file)
    named = {name: number for number, name in sorted(ids.items()) if number not in _VOID_IDS}
    if not 0 < len(named) < _UNNAMED:
        raise DataError(f"{file}: names {len(named)} classes besides void; give 1 to {_UNNAMED - 1}")
    if len(named) < len(set(ids) - set(_VOID_IDS)):
        raise DataError(f"{file}: names a class twice")
    return named


def _list_stills(folder: Path) -> tuple[Path, ...]:
    entries = sorted((folder / "images").iterdir())
    stills = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]
    if not stills:
        raise DataError(f"{folder / 'images'}: has no images")
    lacking = [mask for mask in map(_mask_of, stills) if not mask.is_file()]
    if lacking:
        raise DataError(f"{lacking[0]}: no such mask ({len(lacking)} of {len(stills)} images have none)")
    return tuple(stills)


def _mask_of(image: Path) -> Path:
    return image.parent.parent / "masks" / f"{image.stem}.png"


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
    is_complete: bool  # whether the network knows all scored classes
    per_class: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class NetworkScores:
    """A network's ``scores[set][vocabulary]``, and means over sets by vocabulary if all are complete."""

    network: NetworkFacts
    scores: Mapping[str, Mapping[str, SetScore]]
    mean: Mapping[str, float | None]
    to_best_teacher: Mapping[str, float]  # a student's mean in percent of the best teacher's, by vocabulary


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
    on_progress: OnProgress = lambda stage, done, total: None,
) -> StillsResult:
    """Score ``models`` (mode ``image``) and ``teachers`` (.tflite files) on folders of labelled stills.

    Raises DataError for invalid folders, masks or teachers, or classes without a name table.
    """
    sets = [open_stills(folder) for folder in folders]
    refuse_doubles([each.name for each in sets], "sets")
    loaded = [open_model(model, device) for model in models]
    networks = [*(teacher_network(Path(path)) for path in teachers), *map(student_network, loaded)]
    refuse_doubles([network.facts.name for network in networks], "networks")
    vocabularies = {network.labels.name: network.labels for network in networks}
    tables = [{name: translation(each, labels) for name, labels in vocabularies.items()} for each in sets]
    scores = [
        {each.name: _score(each, network, table, on_progress) for each, table in zip(sets, tables, strict=True)}
        for network in networks
    ]
    facts = [
        SetFacts(each.name, len(each.stills), {name: tuple(of.per_class) for name, of in scores[0][each.name].items()})
        for each in sets
    ]
    return StillsResult(
        sets=tuple(facts),
        networks=tuple(_with_means([network.facts for network in networks], scores, list(vocabularies))),
        **made_by(loaded),
    )


def _score(
    stills: StillSet, network: Network, tables: Mapping[str, Labels], on_progress: OnProgress
) -> dict[str, SetScore]:
    """Scores of a network on a set by vocabulary; ``tables`` are their translations."""
    confusion = ConfusionMatrix(len(stills.labels))
    for done, still in enumerate(stills.stills, 1):
        image, target = stills.read(still)
        labels = network.predict(image, (target.shape[0], target.shape[1]))
        confusion.update(target, np.asarray(cv2.LUT(labels, tables[network.labels.name]), dtype=np.uint8))
        on_progress(f"{network.facts.name} on {stills.name}", done, len(stills.stills))
    names = stills.labels.names
    predictable = {name: np.isin(np.arange(len(names)), table) for name, table in tables.items()}
    scores = {}
    for vocabulary, kept in predictable.items():
        counts = only_targets(confusion.counts, kept)
        occurs = counts.sum(axis=1) > 0
        iou = class_iou(counts)
        scores[vocabulary] = SetScore(
            miou=percent(mean_iou(counts)),
            pixel_accuracy=percent(pixel_accuracy(counts)),
            is_complete=not np.any(occurs & ~predictable[network.labels.name]),
            per_class={names[k]: percent(float(iou[k])) for k in np.flatnonzero(occurs)},
        )
    return scores


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


def _with_means(
    networks: Sequence[NetworkFacts],
    scores: Sequence[Mapping[str, Mapping[str, SetScore]]],
    vocabularies: Sequence[str],
) -> Iterator[NetworkScores]:
    """``scores[network][set][vocabulary]`` with means over sets; students are compared with the best teacher."""
    means = [{name: _mean([of[name] for of in own.values()]) for name in vocabularies} for own in scores]
    of_teachers = [mean for network, mean in zip(networks, means, strict=True) if network.role == "teacher"]
    best = {name: max((mean[name] or 0 for mean in of_teachers), default=0) for name in vocabularies}
    for network, own, mean in zip(networks, scores, means, strict=True):
        known = {name: value for name, value in mean.items() if best[name] and value is not None}
        shares = {name: 100 * value / best[name] for name, value in known.items()}
        yield NetworkScores(network, own, mean, shares if network.role == "student" else {})


def _mean(scores: Sequence[SetScore]) -> float | None:
    """Mean mIoU over sets; None if a score is incomplete or missing."""
    values = [score.miou for score in scores if score.is_complete and score.miou is not None]
    return Mean.of(values).value if len(values) == len(scores) else None
