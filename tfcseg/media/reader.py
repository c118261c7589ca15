"""Frames of a video file, a stream or a folder of images, and the video that is written from frames.

ffmpeg decodes to a constant rate, upright, 8-bit RGB. Each frame arrives as a PPM picture: it names its own size, so
nothing is misread when a file says one size and holds another.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tfcseg.errors import InputError
from tfcseg.media.ffmpeg import FfmpegProcess, check_address, input_arguments, is_address
from tfcseg.media.frames import MAX_PIXELS, Frame, FrameRange, FrameSource, Image, VideoInfo, select_frames
from tfcseg.media.images import DEFAULT_FRAME_RATE, IMAGE_SUFFIXES, open_images, probe_images
from tfcseg.media.probing import SourceStream, probe_address, probe_file
from tfcseg.media.streams import StreamFeed, probe_stream
from tfcseg.media.writer import VideoWriter

__all__ = [
    "DEFAULT_FRAME_RATE",
    "Frame",
    "FrameSource",
    "Image",
    "VideoInfo",
    "VideoWriter",
    "open_frames",
    "probe",
    "read_frames",
]

_EXACT_RGB = "scale=flags=bicubic+accurate_rnd+full_chroma_int,format=gbrp"
"""Converts with the matrix and range that the stream names, to the nearest level. Planar RGB comes first because
swscale is three times faster to it than to packed RGB under these flags; packing it is nearly free."""
_SEEK_MARGIN_S = 1.0
"""Seeking may land after a frame that is shown at the time asked for; starting this much earlier cannot."""
_LONGEST_DECODED_LEAD_S = 5.0
_LONGEST_GAP_S, _SHORTEST_GAP_S = 3600, 60
"""Longest pause between two frames that is believed: that of a stream of unknown length, and of a very short one."""
_MOST_REPEATED = 500_000


def probe(path: str | Path, *, allow_network: bool = False) -> VideoInfo:
    """Describe a video file or a folder of images without decoding it; InputError with one line if nothing."""
    if is_address(path):
        check_address(path, allow_network=allow_network)
        return probe_address(str(path)).info
    if str(path) == "-" or _is_stream(Path(path)):
        raise InputError(f"{path}: a stream can be read only once; open it instead of probing it")
    path = Path(path)
    if path.is_dir():
        return probe_images(path)
    stream = _probe_video(path)
    return probe_images(path) if stream is None else stream.info


def open_frames(
    source: str | Path,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    frame_rate: Fraction = DEFAULT_FRAME_RATE,
    allow_network: bool = False,
) -> FrameSource:
    """Open a video file, a folder of images, a picture, a named pipe, or ``-`` (stdin), and decode its first frame.

    ``start_s`` and ``end_s`` select frames by the time at which the source shows them, the end being left out.
    ``frame_rate`` is that of images; videos bring their own. ``allow_network`` also reads a video at
    an http or https address. Raises InputError if no frame can be had, UsageError for an address without permission.
    """
    if is_address(source):
        check_address(source, allow_network=allow_network)
        return _open_stream(probe_address(str(source)), None, start_s, end_s)
    path = Path(source)
    if str(source) == "-" or _is_stream(path):
        with contextlib.ExitStack() as on_failure:
            feed = on_failure.enter_context(contextlib.closing(StreamFeed(source)))
            frames = _open_stream(probe_stream(feed), feed, start_s, end_s)
            on_failure.pop_all()
        return frames
    if path.is_dir():
        return open_images(path, frame_rate=frame_rate, start_s=start_s, end_s=end_s)
    stream = _probe_video(path)
    if stream is None:
        return open_images(path, frame_rate=frame_rate, start_s=start_s, end_s=end_s)
    return _open_stream(stream, None, start_s, end_s)


def read_frames(
    source: str | Path,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    frame_rate: Fraction = DEFAULT_FRAME_RATE,
    allow_network: bool = False,
) -> Iterator[Frame]:
    """Frames of ``source`` one by one; arguments and errors are those of ``open_frames``."""
    with open_frames(
        source, start_s=start_s, end_s=end_s, frame_rate=frame_rate, allow_network=allow_network
    ) as frames:
        yield from frames


def is_images(source: str | Path) -> bool:
    """Whether ``source`` is a folder or is called like a picture, and so has no frame rate of its own."""
    return Path(source).is_dir() or Path(source).suffix.lower() in IMAGE_SUFFIXES


def _probe_video(path: Path) -> SourceStream | None:
    """Look into a file; None for a picture, which may be called a picture only: others are no video. InputError."""
    try:
        return probe_file(path)
    except InputError:
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            return None
        raise


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _open_stream(
    stream: SourceStream, feed: StreamFeed | None, start_s: float | None, end_s: float | None
) -> FrameSource:
    wanted = select_frames(stream.info.frame_rate, start_s, end_s, first_time_s=stream.first_time_s)
    warnings = list(stream.info.warnings)
    running: list[FfmpegProcess] = []

    def stop() -> None:
        for process in running:
            process.stop()

    return FrameSource(stream.info, _decode(stream, wanted, feed, warnings, running), warnings, stop)


def _decode(
    stream: SourceStream,
    wanted: FrameRange,
    feed: StreamFeed | None,
    warnings: list[str],
    running: list[FfmpegProcess],
) -> Generator[Frame, None, None]:
    """Frames from one ffmpeg process, which ends with this generator; ``warnings`` are added when the frames end.

    The process is put into ``running``, so that it can be stopped while a frame is waited for.
    """
    rate = stream.info.frame_rate
    count = 0
    arguments = _decode_arguments(stream, wanted, is_piped=feed is not None)
    # Left from the inside out: the feed can end only after ffmpeg has, which it may be waiting for.
    with (
        contextlib.nullcontext() if feed is None else contextlib.closing(feed),
        FfmpegProcess(arguments, writes_input=feed is not None, reads_output=True) as process,
    ):
        running.append(process)
        if feed is not None:
            feed.start(process)
        while (image := _read_ppm(process.output)) is not None:
            time_s = stream.first_time_s + float((wanted.first + count) / rate)
            yield Frame(count, time_s, image, is_held=False)
            count += 1
        status = process.wait()
        _check_end(stream, wanted, count, status, process)
        warnings.extend(_end_warnings(stream, wanted, count, process))


def _decode_arguments(stream: SourceStream, wanted: FrameRange, *, is_piped: bool) -> list[str]:
    """Arguments for ffmpeg: one video stream, from the first wanted frame on, at a constant rate, as PPM pictures."""
    rate = stream.info.frame_rate
    lead_s = float(wanted.first / rate)
    options = ["-max_pixels", str(MAX_PIXELS), "-dts_error_threshold", f"{_longest_gap(stream.info) / 30:.6f}"]
    options += [] if stream.decoder is None else ["-c:v", stream.decoder]
    options += ["-copyts"] if stream.keeps_times else []
    options += [] if stream.is_timed else ["-r", str(rate)]
    if stream.is_seekable and not is_piped and lead_s > _LONGEST_DECODED_LEAD_S:
        options += ["-noaccurate_seek", "-ss", f"{stream.first_time_s + lead_s - _SEEK_MARGIN_S:.6f}"]
    # Rather a number than STARTPTS: ffmpeg builds its filters anew when the size of the frames changes on the way.
    origin = "STARTPTS" if stream.decoder_zero_s is None else f"{stream.decoder_zero_s:.6f}/TB"
    timing = f"setpts=round(PTS-{origin})"  # some containers count in whole frames
    if wanted.first:
        # Times are rounded, at worst to whole frames: this is nearer to the first wanted frame than to the one before.
        timing += f",trim=start={lead_s - 0.4 / float(rate):.6f},setpts=round(PTS-{lead_s:.6f}/TB)"
    colours = _EXACT_RGB
    if stream.has_alpha:
        colours = colours.replace("gbrp", "gbrap") + ",premultiply=inplace=1"
    limit = [] if wanted.length is None else ["-frames:v", str(wanted.length)]
    return [
        *("-progress", "pipe:2"),
        *input_arguments("-" if is_piped else stream.info.path, options),
        *("-map", f"0:{stream.index}", "-vf", f"{timing},{colours},scale,format=rgb24", "-r", str(rate), *limit),
        *("-f", "image2pipe", "-c:v", "ppm", "pipe:1"),
    ]


def _longest_gap(info: VideoInfo) -> int:
    """How many frames may be repeated for one that is late, before its time is taken for damage and it is left out.

    One wrong bit in a time would otherwise fill years with copies of a frame.
    """
    longest_s = _LONGEST_GAP_S if info.duration_s is None else max(_SHORTEST_GAP_S, info.duration_s)
    return max(1, min(_MOST_REPEATED, int(longest_s * info.frame_rate)))


def _read_ppm(pipe: BinaryIO) -> Image | None:
    """Read the next picture, (H, W, 3) RGB in memory of its own; None at the end or if the picture is cut off."""
    if pipe.readline() != b"P6\n":
        return None
    width, height = (int(number) for number in pipe.readline().split())
    pipe.readline()  # the largest value, 255
    image = np.empty((height, width, 3), np.uint8)
    unread = image.data.cast("B")
    while unread:
        size = pipe.readinto(unread)  # type: ignore[attr-defined]
        if not size:
            return None
        unread = unread[size:]
    return image


def _check_end(stream: SourceStream, wanted: FrameRange, count: int, status: int, process: FfmpegProcess) -> None:
    """InputError if there were no frames at all, or if the decoder did not end by itself."""
    name, words = stream.info.path, process.last_words()
    if status < 0:
        raise InputError(f"{name}: the decoder died after {count} frames: {words}")
    if count:
        return
    if wanted.first and not status:
        raise InputError(f"{name}: the video ends before the start of the range that was asked for")
    raise InputError(f"{name}: no frame could be decoded{_in_brackets(words)}")


def _end_warnings(stream: SourceStream, wanted: FrameRange, count: int, process: FfmpegProcess) -> list[str]:
    """Say what is known only when the frames have ended: uneven times, damage, and an early end."""
    info, words = stream.info, process.last_words()
    warnings = []
    repeated, dropped = (int(process.progress.get(f"{kind}_frames", 0)) for kind in ("dup", "drop"))
    if words and stream.is_even and repeated:
        warnings.append(f"the video is damaged: {repeated} frames repeated for others that were lost ({words})")
    elif repeated or dropped:
        warnings.append(
            f"the video has a variable frame rate: decoded at a constant {float(info.frame_rate):.5g} frames per "
            f"second, {repeated} frames repeated and {dropped} dropped"
        )
    missing = _missing_frames(stream, wanted, count)
    if missing and (stream.is_length_known or words):
        warnings.append(
            f"decoded {count} of about {count + missing} frames: the file is cut off or damaged{_in_brackets(words)}"
        )
    if words and not any(words in warning for warning in warnings):
        warnings.append(f"the video is damaged, pictures or parts of them may be missing ({words})")
    return warnings


def _missing_frames(stream: SourceStream, wanted: FrameRange, count: int) -> int:
    """How many frames fewer came than the container declares; 0 where that may be rounding."""
    declared = stream.info.frames_declared
    if declared is None:
        return 0
    expected = max(0, declared - wanted.first)
    expected = expected if wanted.length is None else min(expected, wanted.length)
    return expected - count if expected - count > max(1, expected // 100) else 0


def _in_brackets(words: str) -> str:
    return f" ({words})" if words else ""
