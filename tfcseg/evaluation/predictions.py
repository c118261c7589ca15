"""Sources of predicted label maps: a folder of PNGs, or any function of image paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import cv2

from tfcseg.errors import DataError, TfcsegError
from tfcseg.evaluation.provenance import Provenance
from tfcseg.evaluation.vspw import VspwFrame, VspwVideo
from tfcseg.files import replace_atomically
from tfcseg.media.label_video import read_label_video
from tfcseg.media.masks import read_mask
from tfcseg.metrics.scores import Labels

LABELS_NAME = "labels.mkv"

Prediction: TypeAlias = Labels | TfcsegError
"""(H, W) uint8 class indices at the mask's size with 255 = none, or the reason why a frame has no prediction."""

PredictionSource: TypeAlias = Callable[[VspwVideo], Iterable[Prediction]]
"""Yields one prediction per frame of ``video.frames``, in order; asked for them one at a time."""


class PredictionFolder:
    """Label maps that any program wrote: ``DIR/<video>/<stem>.png``, value = class index, 255 = none.

    Or ``DIR/<video>/labels.mkv``, as exports of runs are: lossless, a frame for every frame of the video.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise DataError(f"{directory}: no such folder; predictions are read from <folder>/<video>/<frame>.png")

    def provenance(self) -> Provenance:
        """Provenance of a folder of label maps; what made them is not known."""
        return Provenance(predictions=str(self.directory))

    def __call__(self, video: VspwVideo) -> Iterator[Prediction]:
        """Read the label map of each frame of ``video`` when it is asked for."""
        folder = self.directory / video.name
        if (folder / LABELS_NAME).exists():
            yield from self._from_video(folder / LABELS_NAME, video)
            return
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
                    prediction = next(maps)
                    if number == len(video.frames) and next(maps, None) is not None:
                        raise DataError(f"{path}: has more frames than {video.name}, {number}")  # noqa: TRY301
                except StopIteration:
                    prediction = DataError(f"{path}: ends before frame {frame.stem}")
                except DataError as error:
                    prediction = error
                yield prediction


class PredictionWriter:
    """Writes label maps in the layout that ``PredictionFolder`` reads; OutputError if it cannot."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def __call__(self, video: VspwVideo, frame: VspwFrame, labels: Labels) -> None:
        """Write the (H, W) labels of one frame as an 8-bit gray PNG."""
        encoded = cv2.imencode(".png", labels)[1].tobytes()
        with replace_atomically(self.directory / video.name / f"{frame.stem}.png") as path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)


def from_images(predict_images: Callable[[Sequence[Path]], Iterable[Prediction]]) -> PredictionSource:
    """Make a source of a function that yields one prediction per image path; it is not asked for missing images."""

    def predict(video: VspwVideo) -> Iterator[Prediction]:
        predictions = iter(predict_images([frame.image for frame in video.frames if frame.image is not None]))
        for frame in video.frames:
            if frame.image is None:
                yield DataError(f"{video.name}/{frame.stem}: the image is missing")
                continue
            prediction = next(predictions, None)
            if prediction is None:
                return
            yield prediction

    return predict
