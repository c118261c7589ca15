"""The one file that knows the order: decode → preprocess → model → label → render → write → report.

`segment` turns frames into segmented frames; `run` is a whole video with everything it writes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path

import numpy as np

from tfcseg.errors import UsageError
from tfcseg.ffmpeg import check_address
from tfcseg.frames import Frame, Image, VideoInfo
from tfcseg.inference import IntervalNetwork, checked_options
from tfcseg.outputs import prepare_output
from tfcseg.prefetch import prefetch
from tfcseg.report import Report, write_json
from tfcseg.results import ResultOptions, ResultWriter, RunFacts, build_report
from tfcseg.segmented import SegmentedFrame
from tfcseg.video import open_frames
from tfcseg.weights import LoadedModel, load_model

_READ_AHEAD = 8
"""Decoded frames waiting for the network."""

_WRITE_BEHIND = 8
"""Segmented frames waiting to be written: with _READ_AHEAD and an interval this bounds a run's memory."""


def segment(
    frames: Iterable[Frame | Image],
    model: LoadedModel,
    *,
    mode: str = "tfc",
    keyframe_interval: int | None = None,
    threshold: float | None = None,
    size: int | None = None,
    correlation: str | None = None,
    keyframe_position: str | None = None,
) -> Iterator[SegmentedFrame]:
    """Segment frames in order, an interval at a time; every ``keyframe_interval``-th frame is a keyframe.

    frames: from `read_frames`, or plain (H, W, 3) uint8 RGB arrays, all of one size within an interval. ``mode`` is
    ``tfc``, ``reuse`` or ``image``; ``correlation`` is ``paper`` or ``aligned``, ``keyframe_position``
    ``first`` or ``middle`` of an interval; what is None is the model's default.
    Holds one interval of frames, and nothing between two calls: two videos interleaved do not affect each other.
    UsageError for senseless options.
    """
    options = checked_options(
        model,
        mode=mode,
        keyframe_interval=keyframe_interval,
        threshold=threshold,
        size=size,
        correlation=correlation,
        keyframe_position=keyframe_position,
    )
    network = IntervalNetwork(model, options)
    numbered = (_as_frame(index, frame) for index, frame in enumerate(frames))
    return _segment(numbered, network)


def _segment(frames: Iterator[Frame], network: IntervalNetwork) -> Iterator[SegmentedFrame]:
    # A generator for each interval: nothing of it is held while the frames of the next one are awaited.
    while interval := list(islice(frames, network.options.keyframe_interval)):
        yield from _segment_interval(interval, network)


def _segment_interval(interval: list[Frame], network: IntervalNetwork) -> Iterator[SegmentedFrame]:
    results = network.run([frame.image for frame in interval])
    while interval:
        frame, result = interval.pop(0), results.pop(0)
        yield SegmentedFrame(
            frame.index,
            frame.time_s,
            frame.image,
            result.labels,
            result.is_keyframe,
            result.similarity,
            result.updated_fraction,
            result.model_ms,
            frame.is_held,
        )


def _as_frame(index: int, frame: Frame | Image) -> Frame:
    if isinstance(frame, Frame):
        return frame
    if not isinstance(frame, np.ndarray) or not frame.size:
        raise UsageError(f"a frame is {type(frame).__name__}; a (H, W, 3) uint8 RGB array with pixels is needed")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise UsageError(f"a frame is {frame.dtype} {frame.shape}; (H, W, 3) uint8 RGB is needed")
    return Frame(index, float(index), frame, is_held=False)


Progress = Callable[[SegmentedFrame, VideoInfo], None]


def run(
    source: str | Path,
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    *,
    mode: str = "tfc",
    keyframe_interval: int | None = None,
    threshold: float | None = None,
    size: int | None = None,
    correlation: str | None = None,
    keyframe_position: str | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    results: ResultOptions | None = None,
    overwrite: bool = False,
    allow_network: bool = False,
    on_frame: Progress = lambda frame, info: None,
) -> Report:
    """Segment a video, a folder of frames or stdin (``-``) and write what ``results`` asks for; returns the report.

    output: folder, by default ``<stem>_tfcseg`` in the current one. ``allow_network`` lets ``source`` be an http or
    https address. Any failure raises a TfcsegError with one line; videos then exist complete or not at all, masks and
    rows of finished frames stay.
    """
    started_s = time.perf_counter()
    results = results or ResultOptions()
    check_address(source, allow_network=allow_network)
    folder = Path(output) if output is not None else default_output(source)
    out = prepare_output(folder, inputs=[source], overwrite=overwrite)
    try:
        loaded = model if isinstance(model, LoadedModel) else load_model(model, device=device, precision=precision)
        options = checked_options(
            loaded,
            mode=mode,
            keyframe_interval=keyframe_interval,
            threshold=threshold,
            size=size,
            correlation=correlation,
            keyframe_position=keyframe_position,
        )
        visible = results.visible(loaded.labels)
        frames = open_frames(source, start_s=start_s, end_s=end_s, allow_network=allow_network)
    except BaseException:
        out.discard()
        raise
    with frames:
        writer = ResultWriter(out, frames.info, loaded.labels, visible, results, (start_s, end_s))
        segmented = _segment(prefetch_frames(frames), IntervalNetwork(loaded, options))
        _write_all(segmented, writer, frames.info, on_frame)
        facts = RunFacts(loaded, options, frames.info, frames.frames_decoded, tuple(frames.warnings))
        report = build_report(facts, writer.summary(), time.perf_counter() - started_s)
    if results.report:
        write_json(out.report_json, report)
    return report


def default_output(source: str | Path) -> Path:
    """``<stem>_tfcseg`` in the current folder; ``stdin_tfcseg`` for a stream."""
    stem = "stdin" if str(source) == "-" else Path(source).resolve().stem
    return Path(f"{stem}_tfcseg")


def prefetch_frames(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Frames read ahead by a thread of their own, so that decoding and the network overlap."""
    return prefetch(frames, _READ_AHEAD)


def _write_all(frames: Iterator[SegmentedFrame], writer: ResultWriter, info: VideoInfo, on_frame: Progress) -> None:
    """Render and write in a second thread, at most _WRITE_BEHIND frames late; finish the files, or drop them."""
    pending: deque[Future[None]] = deque()
    with ExitStack() as stack:
        stack.callback(writer.abort)  # after a complete close there is nothing left to abort
        stack.enter_context(closing(frames))  # type: ignore[type-var]  # a generator
        thread = stack.enter_context(ThreadPoolExecutor(1, "tfcseg-write"))
        for frame in frames:
            pending.append(thread.submit(writer.write, frame))
            on_frame(frame, info)
            while len(pending) > _WRITE_BEHIND:
                pending.popleft().result()
        for future in pending:
            future.result()
        writer.close()


def output_folders(sources: Sequence[str | Path], output: Path | None) -> list[Path]:
    """One folder per source: ``output`` itself for a single source, else ``<output>/<stem>_tfcseg`` each.

    Sources of the same stem get a number, so that none overwrites another.
    """
    if len(sources) == 1:
        return [output or default_output(sources[0])]
    base = output or Path()
    folders: list[Path] = []
    for source in sources:
        name = default_output(source).name
        number = 2
        while base / name in folders:
            name = f"{default_output(source).name}_{number}"
            number += 1
        folders.append(base / name)
    return folders


__all__ = ["SegmentedFrame", "default_output", "output_folders", "run", "segment"]
