"""Predictions of a model, for scoring. Apart from predictions.py, since scoring masks needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tfcseg.errors import DataError, InputError, TfcsegError
from tfcseg.evaluation.predictions import Prediction, Predictions
from tfcseg.evaluation.vspw import VspwDataset, VspwFrame, VspwVideo
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.groups import Group
from tfcseg.inference.intervals import run_intervals
from tfcseg.labels.label_sets import read_label_map
from tfcseg.media.images import read_image
from tfcseg.media.masks import read_header
from tfcseg.model.options import InferenceOptions
from tfcseg.report.schema import model_facts
from tfcseg.runs.summary import option_facts
from tfcseg.weights.loading import LoadedModel

_Interval: TypeAlias = list[tuple[VspwFrame, NDArray[np.uint8] | TfcsegError]]


class ModelPredictions:
    """Segments videos; intervals consist of readable images.

    ``model_s``: time of preprocessing, network and labels so far; ``updated_fractions``: of frames between keyframes.
    """

    def __init__(self, model: LoadedModel, options: InferenceOptions) -> None:
        self._model, self._options = model, options
        self._network = IntervalNetwork(model, options)
        self.model_s = 0.0
        self.updated_fractions: list[float] = []

    def scored_on(self, dataset: VspwDataset, label_map: str | Path | None) -> Predictions:
        """Predictions for ``dataset``; ``label_map`` is the file of a label map, None for the built-in one."""
        labels = self._model.labels
        return Predictions(
            self,
            labels,
            None if label_map is None else read_label_map(label_map, labels, dataset.labels),
            mode=self._options.mode,
            provenance={
                "model": asdict(model_facts(self._model)),
                "options": asdict(option_facts(self._model, self._options)),
                "label_map": "built in" if label_map is None else str(label_map),
                "threads": torch.get_num_threads(),
            },
            model_s=lambda: self.model_s,
        )

    def __call__(self, video: VspwVideo) -> Iterator[Prediction]:
        """The labels of each frame of ``video`` (at its mask's size), or the reason why there are none."""
        for interval, results in run_intervals(self._network, self._groups(video)):
            remaining = iter(results)
            for _, image in interval:
                if isinstance(image, TfcsegError):
                    yield image
                else:
                    result = next(remaining)
                    self.model_s += result.model_ms / 1000
                    if result.updated_fraction is not None:
                        self.updated_fractions.append(result.updated_fraction)
                    yield result.labels

    def _groups(self, video: VspwVideo) -> Iterator[Group[_Interval]]:
        interval: _Interval = []
        size: tuple[int, int] | None = None
        for frame in video.frames:
            image = _read_frame(video, frame)
            if not isinstance(image, TfcsegError):
                size = size or (image.shape[0], image.shape[1])
                if image.shape[:2] != size:
                    found, usual = (f"{width}×{height}" for height, width in (image.shape[:2], size))
                    image = DataError(f"{video.name}/{frame.stem}: the image is {found}, those before it are {usual}")
            interval.append((frame, image))
            images = [image for _, image in interval if not isinstance(image, TfcsegError)]
            if len(images) == self._options.keyframe_interval or frame is video.frames[-1]:
                yield Group(images, interval, _label_size(interval))
                interval = []


def _read_frame(video: VspwVideo, frame: VspwFrame) -> NDArray[np.uint8] | TfcsegError:
    if frame.image is None:
        return DataError(f"{video.name}/{frame.stem}: the image is missing")
    try:
        return read_image(frame.image)
    except InputError as error:
        return error


def _label_size(interval: Sequence[tuple[VspwFrame, object]]) -> tuple[int, int] | None:
    """(height, width) of the first readable mask; None stands for the images' size."""
    for path in (frame.mask for frame, _ in interval if frame.mask is not None):
        with suppress(DataError):  # the scorer reports what is wrong with it
            return read_header(path).size
    return None
