"""Read frames of a video file, a stream or a folder of images.

ffmpeg decodes to upright, 8-bit RGB; frames are converted to a constant rate here.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from tfcseg.errors import InputError, LostConnection
from tfcseg.media.animated_webp import probe_animated_webp
from tfcseg.media.decoding import Pictures, decode_arguments, longest_gap
from tfcseg.media.ffmpeg import FfmpegProcess
from tfcseg.media.frames import Frame, FrameRange, FrameSource, Image, VideoInfo, select_frames
from tfcseg.media.images import DEFAULT_FRAME_RATE, open_images, probe_images
from tfcseg.media.probing import SourceStream, probe_address, probe_file
from tfcseg.media.source import Given, Source
from tfcseg.media.streams import StreamFeed, probe_stream
from tfcseg.media.timing import Pace

_ROUNDING_S = 0.001


def probe(source: Given, *, allow_network: bool = False) -> VideoInfo:
    """Describe a video file or a folder of images without decoding it; raises InputError with one line."""
    source = Source.of(source, allow_network=allow_network)
    source.check()
    if not source.is_readable_again:
        raise InputError(f"{source.name}: a stream can be read only once; open it instead of probing it")
    stream = _probe_again(source)
    return probe_images(source) if stream is None else stream.info


def open_frames(
    source: Given,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    frame_rate: Fraction = DEFAULT_FRAME_RATE,
    allow_network: bool = False,
) -> FrameSource:
    """Open a video file, a folder of images, a picture, a stream, an address or a camera, and decode its first frame.

    ``start_s`` and ``end_s`` (exclusive) select frames by their time in the source. ``frame_rate`` is that of images;
    videos have their own. ``allow_network`` permits addresses. Frames of a live source must be read as they come, and
    LostConnection may follow the last one. Raises InputError if no frame can be decoded, UsageError for an address
    without permission.
    """
    source = Source.of(source, allow_network=allow_network)
    source.check()
    if not source.is_readable_again:
        with contextlib.ExitStack() as on_failure:
            feed = on_failure.enter_context(contextlib.closing(StreamFeed(source)))
            frames = _open_stream(probe_stream(feed), feed, start_s, end_s)
            on_failure.pop_all()
        return frames
    stream = _probe_again(source)
    if stream is None:
        return open_images(source, frame_rate=frame_rate, start_s=start_s, end_s=end_s)
    return _open_stream(stream, None, start_s, end_s)


def read_frames(
    source: Given,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    frame_rate: Fraction = DEFAULT_FRAME_RATE,
    allow_network: bool = False,
) -> Iterator[Frame]:
    """Yield the frames of ``source``; arguments and errors are those of ``open_frames``."""
    with open_frames(
        source, start_s=start_s, end_s=end_s, frame_rate=frame_rate, allow_network=allow_network
    ) as frames:
        yield from frames


def _probe_again(source: Source) -> SourceStream | None:
    """Examine a source that can be read again; None for images, which are recognised by their names."""
    if source.kind == "address":
        return probe_address(source)
    if source.kind == "folder":
        return None
    try:
        return probe_file(source)
    except InputError:
        if source.is_images and source.path.is_file():
            return probe_animated_webp(source)
        raise


def _open_stream(
    stream: SourceStream, feed: StreamFeed | None, start_s: float | None, end_s: float | None
) -> FrameSource:
    wanted = select_frames(stream.rates.source_rate, start_s, end_s, first_time_s=stream.first_time_s)
    warnings = list(stream.info.warnings)
    running: list[FfmpegProcess] = []

    def stop() -> None:
        if feed is not None and feed.source.is_live:
            feed.hang_up()
            return
        for process in running:
            process.stop()

    return FrameSource(stream.info, _decode(stream, wanted, feed, warnings, running), warnings, stop)


def _decode(
    stream: SourceStream, wanted: FrameRange, feed: StreamFeed | None, warnings: list[str], running: list[FfmpegProcess]
) -> Generator[Frame, None, None]:
    """Yield frames from an ffmpeg process, which ends with this generator; ``warnings`` are added at the end.

    The process is added to ``running``, so that another thread can stop it.
    """
    times_end, decoder_end = os.pipe()
    with contextlib.ExitStack() as stack:
        pictures = Pictures(stream, stack.enter_context(os.fdopen(times_end, "rb")))
        try:
            arguments = decode_arguments(stream, wanted, decoder_end, is_piped=feed is not None)
            # ffmpeg must end before the feed, which may be waiting for it.
            stack.enter_context(contextlib.nullcontext() if feed is None else contextlib.closing(feed))
            process = stack.enter_context(
                FfmpegProcess(arguments, writes_input=feed is not None, reads_output=True, passes=decoder_end)
            )
        finally:
            os.close(decoder_end)
        running.append(process)
        if feed is not None:
            feed.start(process)
        count, counted = 0, _Counts()
        for position, image, is_held in _at_constant_rate(pictures.read(process.output), stream, wanted, counted):
            time_s = stream.first_time_s + float(position / stream.rates.source_rate)
            yield Frame(count, time_s, image, is_held)
            count += 1
        words = ""
        if counted.has_ended:
            status, words = process.wait(), process.last_words()
            _check_end(stream, wanted, count, status, words)
        if stream.info.source.is_live:
            if feed is not None and counted.has_ended and not feed.is_hung_up:
                raise LostConnection(f"{stream.info.path}: the stream ended after {count} frames: {feed.why_ended()}")
            return
        warnings.extend(_end_warnings(stream, wanted, count, counted, words))
        if pictures.had_alpha:
            warnings.append("the video has an alpha channel: it was composited on black")


@dataclass(slots=True)
class _Counts:
    """Counts of a source's frames."""

    repeated: int = 0
    dropped: int = 0
    jumps: int = 0
    """Number of jumps in time."""
    has_ended: bool = False
    """Whether the source has ended, and not only the requested range."""


def _at_constant_rate(
    pictures: Iterable[tuple[float | None, Image]], stream: SourceStream, wanted: FrameRange, counted: _Counts
) -> Iterator[tuple[int, Image, bool]]:
    """Yield position at the constant rate, image, and whether it repeats the frame before, for ``wanted`` frames."""
    pace = Pace(stream.info.frame_rate, longest_gap(stream.info))
    stop = math.inf if wanted.length is None else wanted.first + wanted.length
    position, is_shown = wanted.first, False
    last: Image | None = None
    last_s: float | None = None
    for number, (time_s, image) in enumerate(pictures):
        place = number if time_s is None else pace.place(time_s)
        counted.jumps = pace.jumps
        if place is None:
            counted.dropped += 1
            continue
        held = image if last is None else last
        while position < min(place, stop):
            yield position, held, is_shown
            counted.repeated += is_shown
            position, is_shown = position + 1, True
        last, last_s, is_shown = image, time_s, False
        if position >= stop:
            return
        if place == position:
            yield position, image, False
            position, is_shown = position + 1, True
    counted.has_ended = True
    times = stream.times
    if last is None or last_s is None or not times.times_s or last_s < times.times_s[-1] - _ROUNDING_S:
        return
    while position < min(stop, round((last_s + times.last_duration_s) * stream.info.frame_rate)):
        yield position, last, is_shown
        counted.repeated += is_shown
        position, is_shown = position + 1, True


def _check_end(stream: SourceStream, wanted: FrameRange, count: int, status: int, words: str) -> None:
    """Raise InputError if there were no frames, or if the decoder was killed."""
    name = stream.info.path
    if status < 0:
        raise InputError(f"{name}: the decoder died after {count} frames: {words}")
    if count:
        return
    if wanted.first and not status:
        raise InputError(f"{name}: the video ends before the start of the requested range")
    source = stream.info.source
    hint = "; if it is live, use --latency low" if source.kind == "address" and not source.is_live else ""
    raise InputError(f"{name}: no frame could be decoded{_in_brackets(words)}{hint}")


def _end_warnings(stream: SourceStream, wanted: FrameRange, count: int, counted: _Counts, words: str) -> list[str]:
    """Warnings that are known at the end: variable rate, damage, early end."""
    info = stream.info
    warnings = []
    if words and stream.rates.is_even and counted.repeated:
        warnings.append(f"the video is damaged: {counted.repeated} frames repeated in place of lost ones ({words})")
    elif counted.repeated or counted.dropped:
        warnings.append(
            f"the video has a variable frame rate: decoded at a constant {float(info.frame_rate):.5g} frames per "
            f"second, {counted.repeated} frames repeated and {counted.dropped} dropped"
        )
    if counted.jumps:
        warnings.append(f"the times of the video jump {counted.jumps} times: its frames continue without a pause there")
    missing = _missing_frames(stream, wanted, count) if counted.has_ended else 0
    if missing and (stream.is_length_known or words):
        warnings.append(
            f"decoded {count} of about {count + missing} frames: the file is cut off or damaged{_in_brackets(words)}"
        )
    if words and not any(words in warning for warning in warnings):
        warnings.append(f"the video is damaged, pictures or parts of them may be missing ({words})")
    return warnings


def _missing_frames(stream: SourceStream, wanted: FrameRange, count: int) -> int:
    """Number of frames that the container claims and that are missing; 0 if this may be rounding."""
    declared = stream.info.frames_declared
    if declared is None:
        return 0
    expected = max(0, declared - wanted.first)
    expected = expected if wanted.length is None else min(expected, wanted.length)
    return expected - count if expected - count > max(1, expected // 100) else 0


def _in_brackets(words: str) -> str:
    return f" ({words})" if words else ""
