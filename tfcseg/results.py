"""What a run writes: render → write → report, frame by frame, and the totals that the report needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.consistency import ConsistencyMeter, FrameConsistency
from tfcseg.errors import DataError, UsageError
from tfcseg.frames import VideoInfo
from tfcseg.inference import InferenceOptions
from tfcseg.labels import LabelSet
from tfcseg.masks import MaskWriter
from tfcseg.outputs import OutputDir
from tfcseg.render import Legend, class_shares, overlay, side_by_side
from tfcseg.report import (
    ClassFacts,
    FrameRow,
    FrameTable,
    InputFacts,
    ModelFacts,
    OptionFacts,
    Report,
    SpeedFacts,
    StabilityFacts,
)
from tfcseg.segmented import SegmentedFrame
from tfcseg.video import VideoWriter
from tfcseg.weights import LoadedModel


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """Which results a run writes, and how they look."""

    overlay: bool = True
    masks: bool = True
    frames_csv: bool = True
    report: bool = True
    side_by_side: bool = False
    alpha: float = 0.55
    """Opacity of the class colours, 0 to 1."""
    legend: bool = True
    classes: Sequence[str] = ()
    """Names of the classes to draw; the others stay as they were filmed. Empty: all."""
    tc: bool = True
    """Measure TC, which needs optical flow."""

    def visible(self, labels: LabelSet) -> NDArray[np.bool_] | None:
        """(K,) flags of the classes to draw, None for all. UsageError for senseless options and unknown names."""
        if not 0.0 <= self.alpha <= 1.0:
            raise UsageError(f"an alpha of {self.alpha:g} is not between 0 and 1")
        if not self.classes:
            return None
        flags = np.zeros(len(labels), np.bool_)
        try:
            flags[[labels.index(name) for name in self.classes]] = True
        except DataError as error:
            raise UsageError(str(error)) from None
        return flags


class _Mean:
    """Mean of the values that were measured."""

    def __init__(self) -> None:
        self._values_sum, self._count = 0.0, 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self._values_sum += value
            self._count += 1

    @property
    def value(self) -> float | None:
        return self._values_sum / self._count if self._count else None

    @property
    def total(self) -> float:
        return self._values_sum


@dataclass(slots=True)
class Summary:
    """Totals over the frames written so far."""

    frames: int = 0
    keyframes: int = 0
    shares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    label_change: _Mean = field(default_factory=_Mean)
    tc: _Mean = field(default_factory=_Mean)
    similarity: _Mean = field(default_factory=_Mean)
    updated_fraction: _Mean = field(default_factory=_Mean)
    keyframe_ms: _Mean = field(default_factory=_Mean)
    non_keyframe_ms: _Mean = field(default_factory=_Mean)
    tc_flow: str | None = None
    audio: str | None = None
    outputs: dict[str, str] = field(default_factory=dict)


class ResultWriter:
    """Writes the results of one run into ``out``; ``close`` completes the files, ``abort`` drops unfinished videos."""

    def __init__(
        self,
        out: OutputDir,
        info: VideoInfo,
        labels: LabelSet,
        visible: NDArray[np.bool_] | None,
        options: ResultOptions,
        range_s: tuple[float | None, float | None],
    ) -> None:
        self._palette = labels.palette_array()
        self._classes = len(labels)
        self._visible = visible
        self._options = options
        self._meter = ConsistencyMeter(use_flow=options.tc)
        self._size = (info.height, info.width)
        self._legend = Legend(labels, self._size) if options.legend else None
        self._summary = Summary(shares=np.zeros(len(labels)), tc_flow=self._meter.flow_name)
        self._videos: list[tuple[str, VideoWriter]] = []
        self._out, self._frame_rate, self._range_s = out, info.frame_rate, range_s
        # A folder of frames and a stream that is gone have no sound to take.
        self._sound = info.path if info.audio is not None and info.path != "-" else None
        self._side_by_side: VideoWriter | None = None
        with ExitStack() as undo:
            undo.callback(self.abort)
            self._overlay = self._open_video("overlay", out.overlay, self._size) if options.overlay else None
            self._masks = MaskWriter(out.masks, self._palette) if options.masks else None
            self._table = FrameTable(out.frames_csv) if options.frames_csv else None
            undo.pop_all()

    def write(self, frame: SegmentedFrame) -> None:
        """Render and write one frame; OutputError if something cannot be written."""
        change = self._meter.update(frame.image, frame.labels)
        shares = class_shares(frame.labels, self._classes)
        similarity = None if frame.similarity is None else float(frame.similarity.mean())
        self._add(frame, shares, similarity, change)
        if self._masks:
            self._masks.write(frame.index, frame.labels)
        if self._options.overlay or self._options.side_by_side:
            self._render(frame, shares)
        if self._table:
            self._table.write(
                FrameRow(
                    frame.index,
                    frame.time_s,
                    frame.is_keyframe,
                    similarity,
                    frame.updated_fraction,
                    change.label_change,
                    change.tc,
                    frame.model_ms,
                )
            )

    def close(self) -> None:
        """Complete all files and give the videos their names."""
        if self._masks:
            self._masks.close()
            self._summary.outputs["masks"] = self._out.masks.name
        if self._table:
            self._table.close()
            self._summary.outputs["frames_csv"] = self._out.frames_csv.name
        for name, video in self._videos:
            video.close()
            self._summary.outputs[name] = video.path.name
            self._summary.audio = video.audio
        if self._options.report:
            self._summary.outputs["report"] = self._out.report_json.name

    def abort(self) -> None:
        """Drop videos that are not complete; finished masks and rows stay."""
        for _, video in self._videos:
            video.abort()

    def summary(self) -> Summary:
        """Totals so far."""
        return self._summary

    def _render(self, frame: SegmentedFrame, shares: NDArray[np.float64]) -> None:
        picture = overlay(frame.image, frame.labels, self._palette, alpha=self._options.alpha, visible=self._visible)
        if self._legend:
            drawn = shares if self._visible is None else shares * self._visible
            self._legend.draw(picture, drawn)
        if self._overlay:
            self._overlay.write(picture)
        if self._options.side_by_side:
            pair = side_by_side([frame.image, picture], ["source", "tfcseg"])
            if self._side_by_side is None:  # its size is known only now
                size = (pair.shape[0], pair.shape[1])
                self._side_by_side = self._open_video("side_by_side", self._out.side_by_side, size)
            self._side_by_side.write(pair)

    def _open_video(self, name: str, path: Path, size: tuple[int, int]) -> VideoWriter:
        start_s, end_s = self._range_s
        video = VideoWriter(
            path, size=size, frame_rate=self._frame_rate, audio_from=self._sound, start_s=start_s, end_s=end_s
        )
        self._videos.append((name, video))
        return video

    def _add(
        self, frame: SegmentedFrame, shares: NDArray[np.float64], similarity: float | None, change: FrameConsistency
    ) -> None:
        total = self._summary
        total.frames += 1
        total.keyframes += frame.is_keyframe
        total.shares += shares
        total.label_change.add(change.label_change)
        total.tc.add(change.tc)
        total.similarity.add(similarity)
        total.updated_fraction.add(frame.updated_fraction)
        (total.keyframe_ms if frame.is_keyframe else total.non_keyframe_ms).add(frame.model_ms)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a report says besides the totals."""

    model: LoadedModel
    options: InferenceOptions
    info: VideoInfo
    frames_decoded: int
    warnings: tuple[str, ...]


def build_report(facts: RunFacts, summary: Summary, wall_s: float) -> Report:
    """The report of a finished run."""
    info, model, options = facts.info, facts.model, facts.options
    model_s = (summary.keyframe_ms.total + summary.non_keyframe_ms.total) / 1000
    warnings = list(facts.warnings)
    if summary.audio and summary.audio.startswith("dropped"):
        warnings.append(f"audio {summary.audio}")
    shares = summary.shares / max(1, summary.frames)
    return Report(
        tfcseg=version("tfcseg"),
        input=InputFacts(
            info.path,
            facts.frames_decoded,
            info.frames_declared,
            info.width,
            info.height,
            info.frame_rate,
            info.duration_s,
            info.rotation,
            summary.audio if info.audio is None else f"{info.audio} ({summary.audio or 'not written'})",
        ),
        model=ModelFacts(
            model.card.name, model.card.config.backbone, model.sha256, len(model.labels), model.parameters
        ),
        options=OptionFacts(
            options.mode,
            options.keyframe_interval,
            options.threshold,
            options.size,
            str(model.device),
            str(model.precision).removeprefix("torch."),
            options.correlation,
            options.keyframe_position,
        ),
        speed=SpeedFacts(
            wall_s,
            summary.frames / wall_s,
            summary.frames / model_s if model_s else None,
            summary.keyframe_ms.value,
            summary.non_keyframe_ms.value,
        ),
        stability=StabilityFacts(
            summary.label_change.value,
            summary.tc.value,
            summary.tc_flow,
            summary.similarity.value,
            summary.updated_fraction.value,
            summary.keyframes,
        ),
        classes=tuple(
            ClassFacts(index, name, float(share))
            for index, (name, share) in enumerate(zip(model.labels.names, shares, strict=True))
            if share > 0 and math.isfinite(share)
        ),
        outputs=dict(summary.outputs),
        warnings=tuple(warnings),
    )
