"""Examine a video file or stream by demuxing it and decoding a frame, and choose the rate at which it is decoded.

Times are seconds from the container's zero; times of frames are seconds from the first frame.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tfcseg.errors import InputError
from tfcseg.media.ffmpeg import LOCAL_PROTOCOLS, NETWORK_PROTOCOLS, NETWORK_TIMEOUT_S, VIDEO_FORMATS, can_tone_map
from tfcseg.media.frames import MAX_PIXELS, VideoInfo, check_size
from tfcseg.media.source import IMAGE_SUFFIXES, Source

_FORMATS = f"{VIDEO_FORMATS},mp4,bmp_pipe,jpeg_pipe,png_pipe,tiff_pipe,webp_pipe,aac,ac3,aiff,amr,caf,flac,mp3,wav"
"""Allowed formats; pictures and sound are among them to name them in errors."""
_PICTURE_BRANDS = {"avif", "heic", "heix", "mif1"}
_SEQUENCE_BRANDS = {"avis", "hevc", "msf1"}
_SEEKABLE_FORMATS = {"mov", "matroska"}
_HDR = {16: ("PQ", "smpte2084"), 18: ("HLG", "arib-std-b67")}
"""Common name of each transfer function of HDR, and ffmpeg's."""
_INTERLACED = "the video is interlaced: its fields were not separated, so moving edges look combed"
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_MAX_PACKETS_TO_FIRST_FRAME = 1000
_MOST_STRETCHED = 64
_HD_LINES = 720  # rows from which players assume HD colours for untagged video
_UNTAGGED, _BT2020 = 2, 9
_HAS_STRICT_TEXT = int(av.__version__.split(".")[0]) < 19  # later versions of PyAV take any text, and no such setting
_NOT_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails

_MOTION_JPEG_SUFFIXES = {".mjpeg", ".mjpg"}
_JPEG = b"\xff\xd8\xff"

_SIGNATURES = {
    b"#EXTM3U": "a playlist, which only points to other files",
    b"ffconcat": "a concat script, which only points to other files",
    b"PK\x03\x04": "a zip archive",
    b"\x1aE\xdf\xa3": "a Matroska or WebM file that is cut off or damaged",
    b"RIFF": "a RIFF (AVI, WAV) file that is cut off or damaged",
}
_MP4_ATOMS = {b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"}


@dataclass(frozen=True, slots=True)
class SourceStream:
    """The video stream to decode, and facts that the decoder needs."""

    info: VideoInfo
    index: int
    decoder: str | None  # decoder to request by name; None for ffmpeg's choice
    has_alpha: bool
    is_untagged_hd: bool
    hdr: str | None  # ffmpeg's name of the transfer function of HDR pictures that are tone-mapped
    is_timed: bool  # whether frames have times; raw streams only have a rate
    is_motion_jpeg: bool  # whether it is a mere sequence of JPEG pictures
    is_even: bool  # whether frames are evenly spaced
    times_s: Sequence[float]  # when each frame of a file is shown, in order; of a large file only the first ones
    last_duration_s: float  # how long the last of them is shown; 0 if unknown
    is_seekable: bool  # whether the container has an index with exact times
    keeps_times: bool
    """Whether times never restart, so the decoder can keep them; otherwise they count from the streams in use."""
    first_time_s: float  # time of frame 0, from the start of the container
    decoder_zero_s: float | None  # the same time on the decoder's clock; None for the time of its first frame
    is_length_known: bool  # whether ``frames_declared`` is of this stream, not of the longest one in the container
    audio_index: int | None
    audio_lead_s: float  # from ffmpeg's zero for audio to the start of the container; negative if audio starts later


def open_container(file: Any, format_name: str | None = None, **settings: Any) -> InputContainer:
    """Open a file or an address for reading; titles and other texts in it need not be UTF-8."""
    if _HAS_STRICT_TEXT:
        settings["metadata_errors"] = "replace"
    container: InputContainer = av.open(file, "r", format_name, **settings)
    return container


def probe_video(source: Source) -> SourceStream:
    """Examine a video file, or one on a server; InputError describes what is not a video."""
    if source.kind == "address":
        return _probe_address(source)
    try:
        with source.path.open("rb") as file:
            head = file.read(4096)
            file.seek(0)
            return probe_readable(file, source, head, is_file=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{source.name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def probe_readable(readable: Any, source: Source, head: bytes, *, is_file: bool = False) -> SourceStream:
    """Examine an open file, or a stream that can only be ``read`` forwards; ``head`` is the beginning of its data."""
    if not head:
        raise InputError(f"{source.name}: not a video: it is empty (0 bytes)")
    # By its content alone, a sequence of JPEG pictures is taken for one.
    is_sequence = not is_file or source.path.suffix.lower() in _MOTION_JPEG_SUFFIXES
    named = "mjpeg" if is_sequence and head.startswith(_JPEG) else None
    try:
        # Not "options", which also apply to streams and crash on those that appear late, as in FLV.
        limits = {"protocol_whitelist": LOCAL_PROTOCOLS, "format_whitelist": _FORMATS}
        container = open_container(readable, named, container_options=limits)
    except av.FFmpegError:
        raise InputError(f"{source.name}: not a video: it is {describe_content(head)}") from None
    with container:
        return _describe_container(container, source, is_file=is_file)


def _probe_address(source: Source) -> SourceStream:
    limits = {"protocol_whitelist": NETWORK_PROTOCOLS, "format_whitelist": _FORMATS}
    timeout = (NETWORK_TIMEOUT_S, NETWORK_TIMEOUT_S)
    try:
        container = open_container(source.given, container_options=limits, timeout=timeout)
    except (av.InvalidDataError, av.ArgumentError):  # the latter for playlists and other disabled formats
        raise InputError(f"{source.name}: not a video that can be read from a server") from None
    except av.ExitError:
        raise InputError(f"{source.name}: the server sent nothing for {NETWORK_TIMEOUT_S:g} s") from None
    except av.FFmpegError as error:
        raise InputError(f"{source.name}: cannot be read: {error.strerror}") from None
    with container:
        return _describe_container(container, source, is_file=False)


def _describe_container(container: InputContainer, source: Source, *, is_file: bool) -> SourceStream:
    _refuse_picture(container, source.name)
    stream = _first_video_stream(container, source.name)
    check_size(source.name, stream.width, stream.height)
    packets, beginning = itertools.tee(container.demux(stream))
    frame = _decode_first_frame(beginning, stream)
    del beginning  # or all packets would be kept for it
    if frame is None:
        hint = "" if is_file else "; an mp4 can be streamed only if its index comes first (+faststart)"
        raise InputError(f"{source.name}: no frame could be decoded from its beginning{hint}")
    if is_file:
        times = _look_up_times(packets, container, stream, _first_time_s(stream, frame))
        return _describe_stream(container, stream, frame, times, source)
    # The times of all frames would take all data. Few servers can seek: the beginning is read and discarded instead.
    return replace(_describe_stream(container, stream, frame, _NO_TIMES, source), is_seekable=False)


def describe_content(head: bytes) -> str:
    """Guess from its first bytes what a file is that is not a video."""
    for signature, meaning in _SIGNATURES.items():
        if head.startswith(signature):
            return meaning
    if head[4:8] in _MP4_ATOMS:
        return "an mp4 or mov file without its index (moov atom), as when a recording or a copy was cut off"
    text = head.decode(errors="replace").removesuffix("\ufffd")  # the last letter may be cut
    return "in no format that can be read" if "\ufffd" in text or "\0" in text else "text"


def _refuse_picture(container: InputContainer, name: str) -> None:
    kind = container.format.name.removesuffix("_pipe")
    if kind == container.format.name:
        kind = container.metadata.get("major_brand", "").strip()
        if kind not in _PICTURE_BRANDS or any(stream.frames > 1 for stream in container.streams.video):
            return
    named = ", ".join(sorted(IMAGE_SUFFIXES))
    raise InputError(f"{name}: not a video: it is a picture ({kind}); pictures are read from files named {named}")


def _first_video_stream(container: InputContainer, name: str) -> VideoStream:
    """Find the first decodable video stream that is not a cover picture or preview."""
    streams = container.streams.video
    found = [each for each in streams if not each.disposition & _NOT_VIDEO and _codec_name(each) is not None]
    # Animated AVIF also has a stream with its first picture only.
    is_sequence = container.metadata.get("major_brand", "").strip() in _PICTURE_BRANDS | _SEQUENCE_BRANDS
    if found:
        return max(found, key=lambda stream: stream.frames) if is_sequence else found[0]
    others = ", ".join(_describe_other(stream) for stream in container.streams) or "nothing"
    raise InputError(f"{name}: no video stream that can be decoded; found {others}")


def _formats(container: InputContainer) -> set[str]:
    return set(container.format.name.split(","))


def _codec_name(stream: Stream) -> str | None:
    # PyAV types the context as always present, but it is missing for codecs without a decoder.
    context: Any = stream.codec_context
    return None if context is None else str(context.codec.canonical_name)


def _describe_other(stream: Stream) -> str:
    if stream.type == "video" and stream.disposition & _NOT_VIDEO:
        return "a cover picture"
    return f"{stream.type} ({_codec_name(stream) or 'unknown codec'})"


def _decode_first_frame(packets: Iterable[Packet[VideoStream]], stream: VideoStream) -> VideoFrame | None:
    """Return the first decodable frame; None if there is none near the beginning."""
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    with suppress(av.FFmpegError):  # while reading
        for packet in itertools.islice(packets, _MAX_PACKETS_TO_FIRST_FRAME):
            with suppress(av.FFmpegError):  # while decoding
                for frame in packet.decode():
                    return frame if isinstance(frame, VideoFrame) else None
    return None


def _describe_stream(
    container: InputContainer, stream: VideoStream, frame: VideoFrame, times: _Times, source: Source
) -> SourceStream:
    times_s, last_duration_s = times
    formats = _formats(container)
    rotation = frame.rotation % 360
    is_turned = rotation % 180 == 90
    width, height = (frame.height, frame.width) if is_turned else (frame.width, frame.height)
    is_timed = not formats & RAW_FORMATS
    average, guessed, base = map(_exact, (stream.average_rate, stream.guessed_rate, stream.base_rate))
    rate, is_even, places = choose_rate(times_s, average if is_timed else guessed, (guessed, base))
    duration_s, is_length_known = _read_duration(container, stream) if is_timed else (None, False)
    declared = None if duration_s is None else round(duration_s * rate)
    if not is_even:
        declared = places if declared is None else declared
    elif stream.frames:  # an edit list can hide frames that are counted
        declared = min(stream.frames, declared) if declared and is_length_known else stream.frames
    keeps_times = not container.format.flags & TIME_JUMPS_FLAG
    container_start_s = (container.start_time or 0) / av.time_base
    has_times = is_timed and not formats & GUESSED_TIMES_FORMATS
    first_s = max(container_start_s, _first_time_s(stream, frame)) if has_times else container_start_s
    zero_s = first_s if keeps_times else first_s - _start_s(stream, first_s)
    has_alpha, decoder = _find_alpha(stream, frame)
    hdr, warnings = _find_hdr(stream, frame, has_alpha=has_alpha)
    aspect = _find_aspect(stream)
    # The track that players choose: the default, else the first.
    audio = max(container.streams.audio, key=lambda each: bool(each.disposition & Disposition.default), default=None)
    info = VideoInfo(
        source=source,
        width=width,
        height=height,
        frame_rate=rate,
        duration_s=duration_s,
        frames_declared=declared,
        rotation=rotation,
        audio=None if audio is None else _codec_name(audio) or "unknown",
        pixel_aspect=1 / aspect if is_turned else aspect,
        warnings=(*warnings, *([_INTERLACED] if frame.interlaced_frame else [])),
    )
    return SourceStream(
        info=info,
        index=stream.index,
        decoder=decoder,
        has_alpha=has_alpha,
        is_untagged_hd=not frame.format.is_rgb and frame.colorspace == _UNTAGGED and frame.height >= _HD_LINES,
        hdr=hdr,
        is_timed=is_timed,
        is_motion_jpeg="mjpeg" in formats,
        is_even=is_even,
        times_s=times_s,
        last_duration_s=last_duration_s,
        is_seekable=bool(formats & _SEEKABLE_FORMATS),
        keeps_times=keeps_times,
        first_time_s=first_s - container_start_s,
        decoder_zero_s=zero_s if has_times else None,
        is_length_known=is_length_known and keeps_times,
        audio_index=None if audio is None else audio.index,
        audio_lead_s=0.0 if audio is None or keeps_times else container_start_s - _start_s(audio, container_start_s),
    )


def _exact(number: Any) -> Fraction | None:
    """A number of PyAV, which has a type of its own from version 19 on; None if it is unknown, then 0."""
    return Fraction(number) if number else None


def _find_alpha(stream: VideoStream, frame: VideoFrame) -> tuple[bool, str | None]:
    """Whether frames have an alpha channel, and the decoder to request for it."""
    if stream.metadata.get("alpha_mode") == "1":  # VP8 and VP9 store alpha separately
        decoder = _ALPHA_DECODERS.get(_codec_name(stream) or "")
        return decoder is not None, decoder
    return any(part.is_alpha for part in frame.format.components), None


def _find_aspect(stream: VideoStream) -> Fraction:
    """Width of a pixel by its height; 1 if it is missing or implausible."""
    aspect = _exact(stream.sample_aspect_ratio)
    return aspect if aspect and Fraction(1, _MOST_STRETCHED) <= aspect <= _MOST_STRETCHED else Fraction(1)


def _find_hdr(stream: VideoStream, frame: VideoFrame, *, has_alpha: bool) -> tuple[str | None, list[str]]:
    """Ffmpeg's name of the transfer function, if pictures are HDR and can be tone-mapped; and what to say of it."""
    name, transfer = _HDR.get(int(stream.codec_context.color_trc or 0), (None, None))
    if name is None:
        return None, []
    is_usual = {frame.colorspace, int(stream.codec_context.color_primaries or _UNTAGGED)} <= {_UNTAGGED, _BT2020}
    why = ""
    if is_usual and not frame.format.is_rgb and not has_alpha:
        if can_tone_map():
            return transfer, [f"the video is HDR ({name}): it was reduced to 8 bits by tone mapping"]
        why = "; this ffmpeg lacks the filters zscale and tonemap, which the bundled one has: unset IMAGEIO_FFMPEG_EXE"
    flat = "reduced to 8 bits without tone mapping, so colours look flat"
    return None, [f"the video is HDR ({name}): it was {flat}{why}"]


_NTSC = Fraction(1000, 1001)
_USUAL_RATES = tuple(map(Fraction, (24, 25, 30, 48, 50, 60, 100, 120, 240)))
_USUAL_RATES += tuple(rate * _NTSC for rate in _USUAL_RATES)
_DEFAULT_RATE = Fraction(25)
_MIN_RATE, _MAX_RATE = Fraction(1, 100_000), Fraction(1000)
_FINER_RATES = [
    *map(Fraction, (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 144, 200, 240))
]
"""Rates for videos with uneven frames and no stated rate; the last one is the limit."""
_LARGEST_TERM = 1_000_000  # ffmpeg rounds rates with larger numbers
_LONGEST_VIDEO_S = 1e8  # three years

_SAME_PLACE = 0.75  # of a frame's duration; times are rounded, and clocks are inexact
_LATEST_S = 0.1  # a picture this late for its sound is not noticed
_TIME_RESET_S = 1.0
_SEEN_SHIFT_S, _ROUNDING_S = 0.04, 0.002


class Pace:
    """Assigns timed frames to places in a sequence of constant ``rate``, each to its own.

    A frame that is a little early comes directly after the one before. ``longest_gap`` is the largest number of places
    skipped before a frame; a longer gap counts as damage.
    """

    def __init__(self, rate: Fraction, longest_gap: int | None = None) -> None:
        self._rate, self._longest_gap = float(rate), longest_gap
        self.shift_s = 0.0
        """What is added to times: they restarted, or jumped too far."""
        self._last_s = -math.inf
        self._next: int | None = None
        self.dropped = 0
        self.jumps = 0
        """How often times restarted, or jumped too far to be plausible."""

    def place(self, time_s: float) -> int | None:
        """Place of the frame shown at ``time_s``, counted from frame 0; None if it must be dropped."""
        exact = (time_s + self.shift_s) * self._rate
        if self._next is None:
            self._next = max(0, round(exact))
        place = self._next if abs(exact - self._next) < _SAME_PLACE else round(exact)
        late_s = (self._next - exact) / self._rate
        if place < self._next:
            if time_s < self._last_s - _ROUNDING_S or late_s > _TIME_RESET_S:  # times restart
                self.shift_s += late_s
                self.jumps += 1
            elif late_s > max(_LATEST_S, 2 / self._rate):
                self._last_s = time_s
                self.dropped += 1
                return None
            place = self._next
        if self._longest_gap is not None and place - self._next > self._longest_gap:
            self.shift_s += (self._next - place) / self._rate
            place = self._next
            self.jumps += 1
        self._next, self._last_s = place + 1, time_s
        return place


def constant_rate(average: Fraction | None, nominal: tuple[Fraction | None, ...]) -> Fraction:
    """Exact rate of a stream of evenly spaced frames.

    Averages come from rounded times (59.94 appears as 2997/50 or 59939/1000), so a close nominal or usual rate replaces
    them. An average of twice the nominal rate or more counts empty packets, as in AVI, and is ignored.
    """
    known = [rate for rate in nominal if rate is not None and _MIN_RATE <= rate <= _MAX_RATE]
    if average is None or not _MIN_RATE <= average <= _MAX_RATE or any(average >= 2 * rate for rate in known):
        return known[0] if known else _DEFAULT_RATE
    close = [rate for rate in _USUAL_RATES if abs(rate - average) <= average / 2000]
    close += [rate for rate in known if abs(rate - average) <= average / 200]
    return close[0] if close else average.limit_denominator(min(_MIN_RATE.denominator, int(_LARGEST_TERM / average)))


def lossless_rate(times_s: Sequence[float], even: Fraction, nominal: tuple[Fraction | None, ...]) -> Fraction:
    """Rate at which each frame of ``times_s`` has its own place near its time.

    It is ``even``, the rate of evenly spaced frames, if possible; else a rate stated by the container, or the lowest
    usual rate. The rate is limited, so frames very close together may be late or dropped.
    """
    finer = sorted({rate for rate in nominal if rate is not None and even < rate <= _FINER_RATES[-1]})
    finer += [rate for rate in _FINER_RATES if rate > even]
    for rate in (even, *finer):
        if _has_place_for_all(times_s, rate, max(_ROUNDING_S, min(1 / float(rate), _SEEN_SHIFT_S))):
            return rate
    for rate in finer:
        if _has_place_for_all(times_s, rate, _LATEST_S):
            return rate
    return max(even, _FINER_RATES[-1])


def _has_place_for_all(times_s: Sequence[float], rate: Fraction, most_shifted_s: float) -> bool:
    pace = Pace(rate)
    placed = ((time_s, pace.place(time_s)) for time_s in times_s)
    return all(place is not None and abs(place / float(rate) - time_s) <= most_shifted_s for time_s, place in placed)


def _start_s(stream: Stream, otherwise: float) -> float:
    """Start of the stream from its header; ``otherwise`` if it is not stated."""
    if stream.start_time is None or stream.time_base is None:
        return otherwise
    return float(stream.start_time * stream.time_base)


def _first_time_s(stream: VideoStream, frame: VideoFrame) -> float:
    """Time of ``frame``, the first decodable one; the stream's start if it has none."""
    if frame.pts is not None and frame.time_base is not None:
        return float(frame.pts * frame.time_base)
    return _start_s(stream, 0.0)


def _read_duration(container: InputContainer, stream: VideoStream) -> tuple[float | None, bool]:
    """Duration, unless it is implausible as in a damaged header, and whether it is this stream's own."""
    if stream.duration is not None and stream.time_base is not None:
        own_s = float(stream.duration * stream.time_base)
        if 0 <= own_s < _LONGEST_VIDEO_S:  # WMV states the longest one for each stream
            return own_s, len(container.streams) == 1 or "asf" not in container.format.name
    if container.duration is None:
        return None, False
    # Matroska states the end: parts cut from the middle of a file keep their times.
    start_s = max(0, container.start_time or 0) / av.time_base if "matroska" in container.format.name else 0.0
    whole_s = container.duration / av.time_base - start_s
    return (whole_s, len(container.streams) == 1) if 0 <= whole_s < _LONGEST_VIDEO_S else (None, False)


GUESSED_TIMES_FORMATS = {"avi"}
"""Formats without times, whose frames are only numbered; libraries derive different times from that."""
TIME_JUMPS_FLAG = 0x0200  # AVFMT_TS_DISCONT
RAW_FORMATS = {"h261", "h263", "h264", "hevc", "m4v", "mjpeg", "mpegvideo", "obu", "vc1", "vvc", "av1"}
_MOST_TIMES, _MOST_BYTES = 100_000, 256 << 20
"""Times are read for at most this many frames and bytes of the file."""
_EARLIER_S = 0.0005
_LONGEST_STEP_S = 10.0  # ffmpeg takes a longer one for a jump where times may restart

_Times: TypeAlias = tuple[Sequence[float], float]  # of frames, and how long the last one is shown
_NO_TIMES: _Times = ((), 0.0)


def _look_up_times(
    packets: Iterable[Packet[VideoStream]], container: InputContainer, stream: VideoStream, first_s: float
) -> _Times:
    """Times from packets, up to a limit; they count from ``first_s``, the time of the first decodable frame.

    There are none if frames have no times, or if times restart.
    """
    if _formats(container) & (RAW_FORMATS | GUESSED_TIMES_FORMATS):
        return _NO_TIMES
    is_vp8 = _codec_name(stream) == "vp8"
    shown: list[tuple[Fraction, Fraction]] = []  # time and duration
    size, last_dts, is_whole = 0, -(2**63), False
    with suppress(av.FFmpegError):
        for packet in packets:
            size += packet.size
            # A VP8 frame without this bit is never shown, but only a reference for others.
            is_hidden = is_vp8 and not bytes(memoryview(packet)[:1] or b"\x10")[0] & 0x10
            if packet.size and not packet.is_discard and not is_hidden:
                if packet.pts is None or (packet.dts is not None and packet.dts < last_dts):
                    return _NO_TIMES
                last_dts = last_dts if packet.dts is None else packet.dts
                shown.append((packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base))
            if len(shown) >= _MOST_TIMES or size >= _MOST_BYTES:
                break
        else:
            is_whole = True
    count = len(shown)
    shown = sorted(entry for entry in shown if entry[0] > first_s - _EARLIER_S)
    may_jump = container.format.flags & TIME_JUMPS_FLAG
    steps = (after[0] - before[0] for before, after in itertools.pairwise(shown))
    if not shown or (may_jump and max(steps, default=0) > _LONGEST_STEP_S):
        return _NO_TIMES
    times_s = [float(time_s - shown[0][0]) for time_s, _ in shown]
    last_duration_s = 0.0 if stream.frames or not is_whole else float(shown[-1][1])
    # How long players show the last one; some formats state durations from decoding time.
    if is_whole and stream.frames == count and stream.duration is not None and stream.time_base is not None:
        last_duration_s = float(stream.duration * stream.time_base) - times_s[-1]
    return times_s, last_duration_s


def choose_rate(
    times_s: Sequence[float], average: Fraction | None, nominal: tuple[Fraction | None, ...]
) -> tuple[Fraction, bool, int | None]:
    """Choose a rate by the times of the first frames (there may be none), the ``average`` and the ``nominal`` rates.

    Returns it, whether frames are evenly spaced, and how many frames at this rate show all of ``times_s``.
    """
    even = constant_rate(average, nominal)
    if not times_s or not times_s[-1]:
        return even, even in nominal, None
    rate = lossless_rate(times_s, even, nominal)
    pace = Pace(rate)
    places = 1 + max(pace.place(time_s) or 0 for time_s in times_s)
    # Truncated files lack frames that others refer to.
    return rate, places == len(times_s) or rate == even in nominal, places
