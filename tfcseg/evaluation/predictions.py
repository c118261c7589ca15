"""Sources of predicted labels: a folder of masks, a model (model_source.py), or any function of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tfcseg.errors import DataError, TfcsegError, UsageError
from tfcseg.evaluation.vspw import VspwDataset, VspwVideo
from tfcseg.labels.label_sets import LabelMap, LabelSet, named_classes, read_label_map
from tfcseg.media.mask_folder import CLASSES_NAME, read_classes
from tfcseg.media.masks import read_label_video, read_mask
from tfcseg.metrics.scores import Labels

LABELS_NAME, MASKS_NAME = "labels.mkv", "masks"

Prediction: TypeAlias = Labels | TfcsegError
"""(H, W) uint8 class indices at the mask's size with 255 = none, or the reason why a frame has no prediction."""

PredictionSource: TypeAlias = Callable[[VspwVideo], Iterable[Prediction]]
"""Yields one prediction per frame of ``video.frames``, in order; asked for them one at a time."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions for a data set, and where they come from."""

    source: PredictionSource
    labels: LabelSet | None = None  # their classes; None: those of the data set
    label_map: LabelMap | None = None  # translates ``labels`` to the data set's classes; None: the built-in map
    mode: str = "predictions"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Model, options, predictions (folder of another program's labels), label_map (file or ``built in``) and threads,
    as far as they apply: entries of eval.json."""
    model_s: Callable[[], float] | None = None  # returns the seconds spent in the network so far


class PredictionFolder:
    """Labels that any program wrote: ``DIR/<video>/<stem>.png``, value = class index, 255 = none.

    ``DIR/<video>`` may also be the output folder of a run: ``labels.mkv`` (one frame per frame of the video) or
    ``masks/<stem>.png``, whose values mean what its ``classes.json`` says, if there is one.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise DataError(f"{directory}: no such folder; predictions are read from <folder>/<video>/<frame>.png")

    def scored_on(self, dataset: VspwDataset, label_map: Path | None = None) -> Predictions:
        """Predictions for ``dataset``; ``label_map`` is the file of a label map, None for the built-in one. UsageError
        for a label map without classes of runs: values are then classes of the data set."""
        if not any((self.directory / name).is_dir() for name in dataset.videos):
            first = next(iter(dataset.videos))
            raise DataError(f"{self.directory}: holds no folder of a video, such as {first!r}; give the one that does")
        labels, provenance = self.labels(dataset), {"predictions": str(self.directory)}
        if labels is None:
            if label_map is not None:
                why = f"{self.directory} has no folders of runs with {CLASSES_NAME}; their values are the data set's"
                raise UsageError(f"--label-map changes nothing: {why}; leave it out")
            return Predictions(self, provenance=provenance)
        pairs = None if label_map is None else read_label_map(label_map, labels, dataset.labels)
        return Predictions(self, labels, pairs, provenance=provenance | {"label_map": str(label_map or "built in")})

    def labels(self, dataset: VspwDataset) -> LabelSet | None:
        """The classes of the runs in the folder; None for plain masks. DataError if videos have different ones."""
        found: dict[tuple[str, ...] | None, tuple[Path, LabelSet | None]] = {}
        for folder in filter(Path.is_dir, (self.directory / name for name in dataset.videos)):
            path, labels = folder / CLASSES_NAME, None
            if path.is_file() and ((folder / LABELS_NAME).exists() or (folder / MASKS_NAME).is_dir()):
                classes = read_classes(folder, path)
                labels = named_classes(str(path), classes.names, classes.colours)
            found.setdefault(None if labels is None else labels.names, (folder, labels))
        if len(found) > 1:
            one, other = [str(folder) for folder, _ in found.values()][:2]
            if None in found:
                raise DataError(f"{one!r} and {other!r} must both be folders of runs with {CLASSES_NAME}, or neither")
            raise DataError(f"{one!r} and {other!r} have different classes; score them one after the other")
        return next((labels for _, labels in found.values()), None)

    def __call__(self, video: VspwVideo) -> Iterator[Prediction]:
        """Read the labels of each frame of ``video`` when they are requested."""
        folder = self.directory / video.name
        if (folder / LABELS_NAME).exists():
            yield from self._from_video(folder / LABELS_NAME, video)
            return
        if (folder / MASKS_NAME).is_dir():
            folder /= MASKS_NAME
        for frame in video.frames:
            try:
                yield read_mask(folder / f"{frame.stem}.png")
            except DataError as error:
                yield error

    def _from_video(self, path: Path, video: VspwVideo) -> Iterator[Prediction]:
        with closing(read_label_video(path)) as maps:  # type: ignore[type-var]  # a generator
            for number, frame in enumerate(video.frames, 1):
                prediction: Prediction
                try:
                    prediction = next(maps, DataError(f"{path}: ends before frame {frame.stem}"))
                    if number == len(video.frames) and next(maps, None) is not None:
                        prediction = DataError(f"{path}: has more frames than {video.name}, {number}")
                except DataError as error:
                    prediction = error
                yield prediction
