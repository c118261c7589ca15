"""Read frames of a video file, a stream or a folder of images.

ffmpeg decodes to upright, 8-bit RGB; frames are converted to a constant rate here.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import os
import re
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from io import BufferedReader
from typing import BinaryIO

import numpy as np

from tfcseg.errors import InputError, LostConnection
from tfcseg.media.ffmpeg import FfmpegProcess, input_arguments
from tfcseg.media.frames import MAX_PIXELS, Frame, FrameRange, FrameSource, Image, VideoInfo, select_frames
from tfcseg.media.images import DEFAULT_FRAME_RATE, composite_on_black, open_images, probe_images
from tfcseg.media.probing import Pace, SourceStream, probe_video
from tfcseg.media.source import Given, Source
from tfcseg.media.streams import StreamFeed, probe_stream
from tfcseg.spelling import count_of

_EXACT_RGB = "flags=bicubic+accurate_rnd+full_chroma_int"
"""Converts with the stream's matrix and range and rounds to the nearest level. Planar RGB is an intermediate format,
since swscale is three times faster at it than at packed RGB with these flags; packing takes almost no time."""
_TONE_MAPPING = (
    "format=yuv444p16",  # the next filter refuses odd sizes with coarser colours
    "setparams=color_primaries=bt2020:color_trc={}:colorspace=bt2020nc",
    "zscale=t=linear:npl=203",  # cd/m² of white, as ITU-R BT.2408 has it
    "format=gbrpf32le",
    "tonemap=mobius:param=0.8:desat=0",  # up to 0.8 of white all stays as it is
    "zscale=p=bt709:t=bt709:m=gbr:r=pc",
)
"""Filters from an HDR transfer function to BT.709."""
_SEEK_MARGIN_S = 1.0
"""Seeking may land after the frame shown at the requested time; seeking this much earlier cannot."""
_LONGEST_DECODED_LEAD_S = 5.0
_LONGEST_GAP_S, _SHORTEST_GAP_S = 3600, 60
"""Longest plausible gap between two frames, in long videos and in very short ones."""
_MOST_REPEATED = 500_000
_LEFT_MARGIN = 3  # frames decoded before the first one of a range, since times are rounded
_TIME = re.compile(rb"frame:\d+ +pts:(-?\d+)")
_OPAQUE = 255
_ALPHA = "the video has an alpha channel: it was composited on black"
_ROUNDING_S = 0.001


def probe(source: Given, *, allow_network: bool = False) -> VideoInfo:
    """Describe a video file or a folder of images without decoding it; InputError if it cannot be read."""
    source = Source.of(source, allow_network=allow_network)
    source.check()
    if not source.is_readable_again:
        raise InputError(f"{source.name}: a stream can be read only once; open it instead of probing it")
    stream = _probe_again(source)
    return probe_images(source)[0] if stream is None else stream.info


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
        feed = StreamFeed(source)
        try:
            return _open_stream(probe_stream(feed), feed, start_s, end_s)
        except BaseException:
            feed.close()
            raise
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
    if source.kind == "folder":
        return None
    try:
        return probe_video(source)
    except InputError:
        if source.is_images and source.path.is_file():
            return None
        raise


def _open_stream(
    stream: SourceStream, feed: StreamFeed | None, start_s: float | None, end_s: float | None
) -> FrameSource:
    wanted = select_frames(stream.info.frame_rate, start_s, end_s, first_time_s=stream.first_time_s)
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
    """Yield frames from an ffmpeg process, which is added to ``running`` and ends with this generator."""
    times_end, decoder_end = os.pipe()
    with contextlib.ExitStack() as stack:
        times = stack.enter_context(os.fdopen(times_end, "rb"))
        try:
            arguments = _decode_arguments(stream, wanted, decoder_end)
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
        pace = Pace(stream.info.frame_rate, _longest_gap(stream.info))
        pictures = _read_pictures(process.output, times, stream, warnings)
        most = None if wanted.stop is None else wanted.stop - wanted.start
        count = repeated = 0
        placed = _at_constant_rate(pictures, stream, wanted.start, pace)
        for image, is_held in itertools.islice(placed, most):
            time_s = stream.first_time_s + float((wanted.start + count) / stream.info.frame_rate)
            yield Frame(count, time_s, image, is_held)
            count, repeated = count + 1, repeated + is_held
        words, is_live = "", feed is not None and feed.source.is_live
        has_ended = most is None or count < most or (not is_live and next(placed, None) is None)
        if has_ended:
            status, words = process.wait(), process.last_words()
            _check_end(stream, wanted, count, status, words)
        if feed is not None and feed.failure is not None:
            warnings.append(feed.failure)
        if feed is None or not is_live:
            warnings.extend(_end_warnings(stream, wanted, count, pace, repeated=repeated, words=words))
        elif has_ended and not feed.is_hung_up:
            raise LostConnection(f"{stream.info.path}: the stream ended after {count} frames: {feed.why_ended()}")


def _at_constant_rate(
    pictures: Iterable[tuple[float | None, Image]], stream: SourceStream, start: int, pace: Pace
) -> Iterator[tuple[Image, bool]]:
    """Yield the image at each position of the constant rate from ``start`` on, and whether it repeats the last one."""
    position, is_shown = start, False
    last: Image | None = None
    last_s: float | None = None
    for number, (time_s, image) in enumerate(pictures):
        place = number if time_s is None else pace.place(time_s)
        if place is None:
            continue
        held = image if last is None else last
        while position < place:
            yield held, is_shown
            position, is_shown = position + 1, True
        last, last_s, is_shown = image, time_s, False
        if place == position:
            yield image, False
            position, is_shown = position + 1, True
    if last is None or last_s is None or not stream.times_s or last_s < stream.times_s[-1] - _ROUNDING_S:
        return
    end_s = last_s + pace.shift_s + stream.last_duration_s
    for _ in range(position, round(end_s * stream.info.frame_rate)):
        yield last, is_shown
        is_shown = True


def _check_end(stream: SourceStream, wanted: FrameRange, count: int, status: int, words: str) -> None:
    name = stream.info.path
    if status < 0:
        raise InputError(f"{name}: the decoder died after {count} frames: {words}")
    if count:
        return
    if wanted.start and not status:
        raise InputError(f"{name}: the video ends before the start of the requested range")
    source = stream.info.source
    hint = "; if it is live, use --latency low" if source.kind == "address" and not source.is_live else ""
    reason = f" ({words})" if words else ""
    raise InputError(f"{name}: no frame could be decoded{reason}{hint}")


def _end_warnings(
    stream: SourceStream, wanted: FrameRange, count: int, pace: Pace, *, repeated: int, words: str
) -> list[str]:
    info = stream.info
    warnings = []
    in_brackets = f" ({words})" if words else ""
    if words and stream.is_even and repeated:
        warnings.append(f"the video is damaged: {repeated} frames repeated in place of lost ones{in_brackets}")
    elif repeated or pace.dropped:
        warnings.append(
            f"the video has a variable frame rate: decoded at a constant {float(info.frame_rate):.5g} frames per "
            f"second, {repeated} frames repeated and {pace.dropped} dropped"
        )
    if pace.jumps:
        places = count_of(pace.jumps, "place")
        warnings.append(f"the times of the video jump in {places}: its frames continue without a pause there")
    declared = info.frames_declared or 0
    expected = (declared if wanted.stop is None else min(declared, wanted.stop)) - wanted.start
    is_short = expected - count > max(1, expected // 100)  # less may be rounding
    if is_short and not pace.jumps and (stream.is_length_known or words):
        warnings.append(f"decoded {count} of about {expected} frames: the file is cut off or damaged{in_brackets}")
    if words and not any(words in warning for warning in warnings):
        warnings.append(f"the video is damaged, pictures or parts of them may be missing{in_brackets}")
    return warnings


def _decode_arguments(stream: SourceStream, wanted: FrameRange, times: int) -> list[str]:
    """Arguments for ffmpeg to return pictures, and their times through the file descriptor ``times``."""
    info = stream.info
    lead_s = float(wanted.start / info.frame_rate)
    options = ["-max_pixels", str(MAX_PIXELS), "-dts_error_threshold", f"{_longest_gap(info) / 30:.6f}"]
    options += ["-f", "mjpeg"] if stream.is_motion_jpeg else []
    options += [] if stream.decoder is None else ["-c:v", stream.decoder]
    options += ["-thread_type", "slice"] if info.source.is_live else []  # frame threads delay a frame per thread
    options += ["-copyts"] if stream.keeps_times else []
    options += [] if stream.is_timed else ["-r", str(info.frame_rate)]
    if stream.is_seekable and lead_s > _LONGEST_DECODED_LEAD_S:
        options += ["-noaccurate_seek", "-ss", f"{stream.first_time_s + lead_s - _SEEK_MARGIN_S:.6f}"]
    filters = ["settb=AVTB", *_skip(stream, lead_s)]
    filters += ["metadata=mode=add:key=k:value=v", rf"metadata=mode=print:direct=1:file='pipe\:{times}'"]
    filters += ["setpts=N"]  # write all pictures, whatever their times
    filters += ["setparams=colorspace=bt709"] if stream.is_untagged_hd else []
    filters += [] if stream.hdr is None else [each.format(stream.hdr) for each in _TONE_MAPPING]
    planar, packed = ("gbrap", "rgba") if stream.has_alpha else ("gbrp", "rgb24")
    size = f"{info.width}:{info.height}"  # of the first picture; others are fitted into it
    filters += [f"scale={size}:force_original_aspect_ratio=decrease:{_EXACT_RGB}", f"format={planar}"]
    filters += [f"pad={size}:-1:-1"]
    return [
        *input_arguments(info.source, options),
        *("-map", f"0:{stream.index}", "-vf", ",".join([*filters, "scale", f"format={packed}"])),
        *(("-flush_packets", "1") if info.source.is_live else ()),
        *("-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"),
    ]


def _skip(stream: SourceStream, lead_s: float) -> list[str]:
    """Filters that drop frames before the one shown ``lead_s`` after frame 0, if times are known."""
    before = bisect.bisect_right(stream.times_s, lead_s)
    if before < _LEFT_MARGIN or stream.decoder_zero_s is None or not stream.is_timed:
        return []
    return [f"trim=start={stream.decoder_zero_s + stream.times_s[before - _LEFT_MARGIN] - 0.0005:.6f}"]


def _longest_gap(info: VideoInfo) -> int:
    """Most frames that are repeated before a late one; with a longer gap its time counts as damaged.

    Otherwise a wrong bit in a time could produce years of repeated frames.
    """
    longest_s = min(_LONGEST_GAP_S, max(_SHORTEST_GAP_S, math.inf if info.duration_s is None else info.duration_s))
    return max(1, min(_MOST_REPEATED, int(longest_s * info.frame_rate)))


def _read_pictures(
    pipe: BufferedReader, times: BinaryIO, stream: SourceStream, warnings: list[str]
) -> Iterator[tuple[float | None, Image]]:
    """Yield seconds after frame 0 (None if there are no times), and (H, W, 3) RGB in its own memory."""
    zero_s = stream.decoder_zero_s
    shape = (stream.info.height, stream.info.width, 4 if stream.has_alpha else 3)
    while pipe.readinto((picture := np.empty(shape, np.uint8)).data) == picture.nbytes:
        time_s = _read_time(times)
        zero_s = time_s if zero_s is None else zero_s
        if stream.has_alpha:
            is_opaque = picture[..., 3].min() == _OPAQUE
            if not is_opaque and _ALPHA not in warnings:
                warnings.append(_ALPHA)
            picture = np.ascontiguousarray(picture[..., :3]) if is_opaque else composite_on_black(picture)
        yield (None if time_s is None or not stream.is_timed else time_s - (zero_s or 0.0)), picture


def _read_time(times: BinaryIO) -> float | None:
    for line in times:
        if (found := _TIME.match(line)) is not None:
            return int(found[1]) / 1e6
        if line.startswith(b"frame:"):
            return None
    return None
