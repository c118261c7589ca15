"""Stability of predicted labels over a video, as means that pool; needs images but no masks."""

from __future__ import annotations

from tfcseg.evaluation.result import percent
from tfcseg.media.frames import Image
from tfcseg.metrics.consistency import ConsistencyMeter
from tfcseg.metrics.scores import Labels, Mean


class StabilityScores:
    """Flow consistency and label change over pairs of successive frames of a video."""

    def __init__(self, *, use_flow: bool = True) -> None:
        self._use_flow = use_flow
        self._meter = ConsistencyMeter(use_flow=use_flow)
        self._found: dict[str, list[float]] = {"flow_consistency": [], "label_change": []}

    @property
    def flow_consistency(self) -> Mean:
        """Share of labels that agree along the flow."""
        return Mean.of(self._found["flow_consistency"])

    @property
    def label_change(self) -> Mean:
        """Share of pixels whose label differs from the previous frame's."""
        return Mean.of(self._found["label_change"])

    def percentages(self) -> dict[str, float | None]:
        """Both, in percent; None where nothing was measured."""
        return {name: percent(Mean.of(values).value) for name, values in self._found.items()}

    @property
    def flow_name(self) -> str | None:
        """Name of the optical flow: only numbers of the same flow can be compared."""
        return self._meter.flow_name

    def restart(self) -> None:
        """Forget the previous frame: the next one does not follow it."""
        self._meter = ConsistencyMeter(use_flow=self._use_flow)

    def update(self, image: Image, labels: Labels) -> None:
        """Add a frame (H, W, 3) with its (H, W) labels; InputError if the size changes."""
        for name, value in self._meter.update(image, labels)._asdict().items():
            if value is not None:
                self._found[name].append(value)
