"""From frames to labels: an interval at a time, or frame by frame with low latency."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice, tee
from typing import Any

import numpy as np

from tfcseg.errors import UsageError
from tfcseg.inference.engine import FrameResult, IntervalNetwork
from tfcseg.inference.intervals import Group, run_intervals
from tfcseg.inference.options import checked_options
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Frame, Image
from tfcseg.model.evidence import HandedOn
from tfcseg.model.options import InferenceOptions
from tfcseg.weights.loading import LoadedModel


def segment(frames: Iterable[Frame | Image], model: LoadedModel, **options: Any) -> Iterator[SegmentedFrame]:
    """Segment frames in order, an interval at a time; every ``keyframe_interval``-th frame is a keyframe.

    frames: from `read_frames`, or plain (H, W, 3) uint8 RGB arrays, all of one size within an interval. ``options`` are
    fields of `InferenceOptions`, such as ``threshold=0.7``. With ``latency="low"`` every frame comes out before the
    next is asked for. Holds some intervals of frames, and nothing between two calls: two videos interleaved do not
    affect each other. UsageError for senseless options.
    """
    return segment_with(frames, model, checked_options(model, **options))


def segment_with(
    frames: Iterable[Frame | Image], model: LoadedModel, options: InferenceOptions
) -> Iterator[SegmentedFrame]:
    """Segment frames as `segment` does, with options that were checked before."""
    network = IntervalNetwork(model, options)
    numbered = (_as_frame(index, frame) for index, frame in enumerate(frames))
    # Whoever keeps the frames must not keep what only the network needs.
    return (replace(frame, carried=None) for frame in segment_frames(numbered, network))


def segment_frames(
    frames: Iterator[Frame], network: IntervalNetwork, before: HandedOn | None = None
) -> Iterator[SegmentedFrame]:
    """Segment ``frames``, which begin with an interval; ``before`` is what the interval before them hands on."""
    if network.options.latency == "low":
        ahead, behind = tee(frames)  # the second is one frame behind the first
        yield from map(partial(_join, network.labels), ahead, network.stream((frame.image for frame in behind), before))
        return
    for group, results in run_intervals(network, _groups(frames, network.frames_at_once), before):
        while group:
            yield _join(network.labels, group.pop(0), results.pop(0))


def _groups(frames: Iterator[Frame], length: int) -> Iterator[Group[list[Frame]]]:
    """``frames`` in groups of ``length``; the last one has what is left."""
    while group := list(islice(frames, length)):
        yield Group([frame.image for frame in group], group)
        del group


def _join(labels: LabelSet, frame: Frame, result: FrameResult) -> SegmentedFrame:
    return SegmentedFrame(
        frame.index,
        frame.time_s,
        frame.image,
        result.labels,
        result.is_keyframe,
        result.similarity,
        result.updated_fraction,
        result.model_ms,
        frame.is_held,
        labels,
        result.carried,
    )


def _as_frame(index: int, frame: Frame | Image) -> Frame:
    if isinstance(frame, Frame):
        return frame
    if not isinstance(frame, np.ndarray) or not frame.size:
        raise UsageError(f"a frame is {type(frame).__name__}; a (H, W, 3) uint8 RGB array with pixels is needed")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise UsageError(f"a frame is {frame.dtype} {frame.shape}; (H, W, 3) uint8 RGB is needed")
    return Frame(index, float(index), frame, is_held=False)
