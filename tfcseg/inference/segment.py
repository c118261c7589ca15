"""Segment frames: an interval at a time, or frame by frame with low latency."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tfcseg.errors import UsageError, in_python_words
from tfcseg.inference.engine import FrameResult, IntervalNetwork
from tfcseg.inference.groups import Group, is_shown_by, part_at, pictures
from tfcseg.inference.intervals import run_intervals, stream
from tfcseg.inference.options import checked_options
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Frame, FrameSource, Image
from tfcseg.media.source import Given, Source
from tfcseg.model.evidence import CarryOver
from tfcseg.model.options import InferenceOptions
from tfcseg.options import sort_options
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, open_model


class SegmentedFrames(Iterator[SegmentedFrame]):
    """Segmented frames, for ``for`` loops and for ``async for``, where a thread does the work.

    Resources are freed at the end, by `close`, and at the end of a ``with`` block. Several threads may take frames from
    it: each frame goes to one of them.
    """

    def __init__(self, frames: Generator[SegmentedFrame, None, None], opened: Sequence[FrameSource] = ()) -> None:
        self._frames, self._opened = frames, opened
        self._busy = threading.RLock()

    def __next__(self) -> SegmentedFrame:
        with self._busy, in_python_words():
            return next(self._frames)

    def __aiter__(self) -> SegmentedFrames:
        return self

    async def __anext__(self) -> SegmentedFrame:
        frame = await asyncio.to_thread(next, self, None)
        if frame is None:
            raise StopAsyncIteration
        return frame

    def close(self) -> None:
        """Stop reading and computing; may be called again, also from another thread while one waits for a frame."""
        for source in self._opened:
            if not source.info.source.is_on_disk:  # its next frame may never come
                source.stop()
        with self._busy:
            self._frames.close()

    def __enter__(self) -> SegmentedFrames:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self.close()


def segment(
    frames: Given | Image | Iterable[Frame | Image],
    model: str | Path | LoadedModel = "default",
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    allow_network: bool = False,
    **options: Any,
) -> SegmentedFrames:
    """Segment frames in order, one interval at a time.

    frames: a video, a folder of images, the number of a camera or an address (with ``allow_network``), of which
    ``start_s`` and ``end_s`` select a part; or frames from `read_frames`; or (H, W, 3) uint8 RGB arrays, all of one
    size within an interval, also as one (T, H, W, 3) array. Arrays are copied, so one buffer can be reused. ``model``:
    what `load_model` takes or returns. ``options``: fields of `InferenceOptions`, such as ``threshold=0.7``. With
    ``latency="low"`` each frame is returned before the next one is requested.

    Holds a few intervals of frames, and no state between calls. A live source yields its newest frame with low latency:
    gaps in ``index`` show what was left out, and LostConnection is raised when the stream ends. Raises UsageError for
    options that make no sense, InputError for unreadable input, WeightsError for the model.
    """
    (inference,) = sort_options(segment, options, InferenceOptions)
    source: Source | None = None
    with in_python_words():
        if isinstance(frames, str | Path | int | Source):
            source = Source.of(frames, allow_network=allow_network, live=inference.get("latency") == "low")
            source.check()
            inference |= {"latency": "low"} if source.is_live else {}
        elif not isinstance(frames, Iterable):
            named = type(frames).__name__
            raise UsageError(f"frames are {named}; give a path, an address, a camera's number or arrays")
        elif start_s is not None or end_s is not None:
            raise UsageError("start_s and end_s select a part of a file; with frames, pass only those you want")
        loaded = open_model(model, DeviceOptions(device, precision), allow_network=allow_network)
        chosen = checked_options(loaded, **inference)
    if source is not None:
        opened: list[FrameSource] = []
        return SegmentedFrames(_segment_source(source, loaded, chosen, (start_s, end_s), opened), opened)
    single = isinstance(frames, np.ndarray) and frames.ndim == 3
    return SegmentedFrames(segment_with([frames] if single else frames, loaded, chosen))  # type: ignore[arg-type,list-item]


def _segment_source(
    source: Source,
    model: LoadedModel,
    options: InferenceOptions,
    range_s: tuple[float | None, float | None],
    opened: list[FrameSource],
) -> Generator[SegmentedFrame, None, None]:
    """Frames of a source, which is put into ``opened`` so that others can stop it while a frame is waited for."""
    from tfcseg.media.frames import most_waiting, prefetch
    from tfcseg.media.reader import open_frames
    from tfcseg.media.streams import NewestFrames

    start_s, end_s = range_s
    with open_frames(source, start_s=start_s, end_s=end_s) as read:
        opened.append(read)
        if source.is_live:
            with closing(NewestFrames(read)) as newest:
                yield from segment_with(newest, model, options)
            return
        ahead = 1 if options.latency == "low" else most_waiting(read.info.height, read.info.width)
        with closing(prefetch(read, ahead, read.stop)) as frames:
            yield from segment_with(frames, model, options)


def segment_with(
    frames: Iterable[Frame | Image], model: LoadedModel, options: InferenceOptions
) -> Generator[SegmentedFrame, None, None]:
    """Like `segment`, with options that were checked before. What ended the frames early is raised after the last."""
    failure: Exception | None = None

    def numbered() -> Iterator[Frame]:
        nonlocal failure
        try:
            for index, frame in enumerate(frames):
                yield _as_frame(index, frame)
        except Exception as error:  # noqa: BLE001  # raised below
            failure = error

    for frame in segment_frames(numbered(), IntervalNetwork(model, options)):
        yield replace(frame, carried=None)  # who keeps frames must not keep what only the network needs
    if failure is not None:
        raise failure


def segment_frames(
    frames: Iterator[Frame],
    network: IntervalNetwork,
    before: CarryOver | None = None,
    part_frames: int | None = None,
    wanted_from: int = 0,
) -> Generator[SegmentedFrame, None, None]:
    """Segment ``frames``, which start with an interval; ``before`` is the carry-over of earlier keyframes.

    Intervals count pictures: a frame that repeats the one before does not count. Each part of ``part_frames`` starts
    with an interval, and each `SECTION_PARTS` parts with the carry-over of the end of those before. Labels of frames
    before ``wanted_from``, which starts a part, may be left out.
    """
    if network.options.latency == "low":
        yield from _stream(frames, network, before, part_frames)
        return
    groups = _groups(pictures(frames, part_frames), network.frames_at_once, part_frames, wanted_from)
    is_weighed = network.options.sides != "one"
    for group, results in run_intervals(network, groups, before):
        while group:
            shown, result = group.pop(0), results.pop(0)
            # Where keyframes are weighed, a run can resume after any frame with a carry-over, wherever groups end.
            is_last = result.carried is not None if is_weighed else not group
            *repeated, last = [_segmented(network.labels, frame, result, frame is shown[0]) for frame in shown]
            yield from (replace(frame, carried=None) for frame in repeated)
            yield replace(last, ends_group=is_last)
            del shown, result, repeated, last  # nothing is held while waiting for the next ones


def _groups(
    shown: Iterator[list[Frame]], length: int, part_frames: int | None, wanted_from: int
) -> Iterator[Group[list[list[Frame]]]]:
    """Yield pictures in groups of ``length``; the last group of a part or of the video may be shorter."""

    def grouped(several: list[list[Frame]]) -> Group[list[list[Frame]]]:
        first = several[0][0]
        return Group(
            [frames[0].image for frames in several],
            several,
            part=part_at(first, part_frames),
            is_wanted=first.index >= wanted_from,
        )

    group: list[list[Frame]] = []
    for frames in shown:
        if group and part_at(frames[0], part_frames) is not None:
            yield grouped(group)
            group = []
        group.append(frames)
        if len(group) == length:
            del frames
            yield grouped(group)
            group = []
    if group:
        yield grouped(group)


def _stream(
    frames: Iterator[Frame], network: IntervalNetwork, before: CarryOver | None, part_frames: int | None
) -> Iterator[SegmentedFrame]:
    shown: list[Frame] = []
    dropped = 0  # since the last keyframe
    result: FrameResult | None = None
    results: Iterator[FrameResult] = iter(())
    for frame in frames:
        if result is not None and is_shown_by(shown, frame, part_frames):
            shown.append(replace(frame, image=shown[0].image, is_held=True))
            yield _segmented(network.labels, shown[-1], result, False)
            continue
        dropped += frame.index - shown[-1].index - 1 if shown else 0
        # Where a live source has moved on, a keyframe from before shows too little of what is there now.
        begins_part = part_at(frame, part_frames) is not None
        if result is None or begins_part or dropped >= network.options.keyframe_interval:
            live = (shown[0].image for _ in count())
            results = stream(network, live, before if result is None else result.carried)
        shown = [frame]
        result = next(results)
        dropped = 0 if result.is_keyframe else dropped
        yield _segmented(network.labels, frame, result)


def _segmented(labels: LabelSet, frame: Frame, result: FrameResult, is_computed: bool = True) -> SegmentedFrame:
    return SegmentedFrame(
        index=frame.index,
        time_s=frame.time_s,
        image=frame.image,
        labels=result.labels,
        is_keyframe=result.is_keyframe,
        similarity=result.similarity,
        updated_fraction=result.updated_fraction,
        model_ms=result.model_ms if is_computed else None,
        is_held=frame.is_held,
        is_stand_in=frame.is_stand_in,
        label_set=labels,
        confidence_grid=result.confidence,
        carried=result.carried,
    )


def _as_frame(index: int, frame: Frame | Image) -> Frame:
    if isinstance(frame, Frame):
        return frame
    if not isinstance(frame, np.ndarray) or not frame.size:
        raise UsageError(f"a frame is {type(frame).__name__}; a (H, W, 3) uint8 RGB array with pixels is needed")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise UsageError(f"a frame is {frame.dtype} {frame.shape}; (H, W, 3) uint8 RGB is needed")
    return Frame(
        index, float(index), frame.copy(), is_held=False
    )  # the caller may draw the next frame into the same buffer
