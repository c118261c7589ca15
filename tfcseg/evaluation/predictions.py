"""Sources of predicted labels: a folder of masks, a model (model_source.py), or any function of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tfcseg.errors import DataError, TfcsegError
from tfcseg.evaluation.vspw import VspwVideo
from tfcseg.labels.label_sets import LabelMap, LabelSet
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
    ``masks/<stem>.png``. DataError if its ``classes.json`` has other indices than ``labels``, the data set's classes.
    """

    def __init__(self, directory: str | Path, labels: LabelSet | None = None) -> None:
        self.directory, self._labels = Path(directory), labels
        if not self.directory.is_dir():
            raise DataError(f"{directory}: no such folder; predictions are read from <folder>/<video>/<frame>.png")

    def scored(self) -> Predictions:
        """The labels as they are; the program that made them is unknown."""
        return Predictions(self, provenance={"predictions": str(self.directory)})

    def __call__(self, video: VspwVideo) -> Iterator[Prediction]:
        """Read the labels of each frame of ``video`` when they are requested."""
        folder = self.directory / video.name
        if self._labels is not None and (folder / CLASSES_NAME).is_file():
            _check_classes(folder / CLASSES_NAME, self._labels)
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


def _check_classes(path: Path, labels: LabelSet) -> None:
    """Raise DataError if a list of classes has one of ``labels`` at another index."""
    for index, name in read_classes(path.parent, path).names.items():
        if name in labels.names and labels.names.index(name) != index:
            raise DataError(
                f"{path}: {name!r} is value {index}, but class {labels.names.index(name)} of {labels.name}; masks are "
                "scored by their values: score the model itself with --model, or translate the masks"
            )
