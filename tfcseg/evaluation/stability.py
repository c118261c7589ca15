"""Stability of predicted labels over a video, pooled as sums; needs images but no masks."""

from __future__ import annotations

from pathlib import Path

from tfcseg.errors import DataError
from tfcseg.media.images import read_image
from tfcseg.metrics.consistency import ConsistencyMeter
from tfcseg.metrics.scores import Labels, Mean


class StabilityScores:
    """Flow consistency and label change over pairs of successive frames of a video, as sums that pool."""

    def __init__(self) -> None:
        self._meter: ConsistencyMeter | None = None
        self._flow_consistency: list[float] = []
        self._label_change: list[float] = []

    @property
    def flow_consistency(self) -> Mean:
        """Share of labels that agree along the flow."""
        return Mean.of(self._flow_consistency)

    @property
    def label_change(self) -> Mean:
        """Share of pixels whose label differs from the previous frame's."""
        return Mean.of(self._label_change)

    def restart(self) -> None:
        """Forget the previous frame: the next one does not follow it."""
        self._meter = None

    def update(self, image_path: Path, labels: Labels, *, after_gap: bool) -> None:
        """Add a frame with its predicted (H, W) labels; TfcsegError if its image is unreadable or of another size."""
        image = read_image(image_path)
        if image.shape[:2] != labels.shape:
            sizes = f"{image.shape[:2]}, but that of the labels {labels.shape}"
            raise DataError(f"{image_path}: the image's (height, width) is {sizes}")
        if after_gap or self._meter is None:
            self._meter = ConsistencyMeter()
        found = self._meter.update(image, labels)
        if found.flow_consistency is not None:
            self._flow_consistency.append(found.flow_consistency)
        if found.label_change is not None:
            self._label_change.append(found.label_change)


def flow_name() -> str | None:
    """Name the optical flow behind flow consistency: only numbers of the same flow can be compared."""
    return ConsistencyMeter().flow_name
