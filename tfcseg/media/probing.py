"""Examine a video file or stream by demuxing it and decoding a frame; times are seconds."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tfcseg.errors import InputError
from tfcseg.media.ffmpeg import LOCAL_PROTOCOLS, NETWORK_PROTOCOLS, NETWORK_TIMEOUT_S, VIDEO_FORMATS, has_decoder
from tfcseg.media.frames import MAX_PIXELS, VideoInfo, check_size
from tfcseg.media.source import Source
from tfcseg.media.timing import (
    GUESSED_TIMES_FORMATS,
    NO_TIMES,
    RAW_FORMATS,
    TIME_JUMPS_FLAG,
    FrameTimes,
    Packets,
    Rates,
    choose_rates,
    count_frames,
    read_duration,
    read_first_time_s,
    read_start_s,
)

_FORMATS = f"{VIDEO_FORMATS},mp4,bmp_pipe,jpeg_pipe,png_pipe,tiff_pipe,webp_pipe,aac,ac3,aiff,amr,caf,flac,mp3,wav"
"""Allowed formats; pictures and sound are among them to name them in errors."""
_PICTURE_BRANDS = {"avif", "heic", "heix", "mif1"}
_SEQUENCE_BRANDS = {"avis", "hevc", "msf1"}
_SEEKABLE_FORMATS = {"mov", "matroska"}
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_MAX_PACKETS_TO_FIRST_FRAME = 300
_MOST_STRETCHED = 64
_HD_LINES = 720  # rows from which players assume HD colours for untagged video
_UNTAGGED = 2
_NOT_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails

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
    is_decodable: bool  # whether a frame near the beginning could be decoded
    is_timed: bool  # whether frames have times; raw streams only have a rate
    rates: Rates
    times: FrameTimes
    is_seekable: bool  # whether the container has an index with exact times
    keeps_times: bool
    """Whether times never restart, so the decoder can keep them; otherwise they count from the streams in use."""
    container_start_s: float
    first_time_s: float  # time of frame 0, from the start of the container
    decoder_zero_s: float | None  # the same time on the decoder's clock; None for the time of its first frame
    is_length_known: bool  # whether ``frames_declared`` is of this stream, not of the longest one in the container
    audio_index: int | None
    audio_start_s: float


def probe_file(source: Source) -> SourceStream:
    """Examine a video file; InputError describes a file that is not a video."""
    try:
        with source.path.open("rb") as file:
            head = file.read(4096)
            file.seek(0)
            return probe_readable(file, source, head, is_file=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{source.name}: cannot be read: {reason}") from None


def probe_readable(readable: Any, source: Source, head: bytes, *, is_file: bool = False) -> SourceStream:
    """Examine an open file, or a stream that can only be ``read`` forwards; ``head`` is the beginning of its data."""
    if not head:
        raise InputError(f"{source.name}: not a video: it is empty (0 bytes)")
    try:
        # Not "options", which also apply to streams and crash on those that appear late, as in FLV.
        limits = {"protocol_whitelist": LOCAL_PROTOCOLS, "format_whitelist": _FORMATS}
        container = av.open(readable, "r", container_options=limits, metadata_errors="replace")
    except av.FFmpegError:
        raise InputError(f"{source.name}: not a video: it is {describe_content(head)}") from None
    with container:
        return _describe_container(container, source, is_file=is_file)


def probe_address(source: Source) -> SourceStream:
    """Examine a video on a server; no other server is contacted."""
    limits = {"protocol_whitelist": NETWORK_PROTOCOLS, "format_whitelist": _FORMATS}
    timeout = (NETWORK_TIMEOUT_S, NETWORK_TIMEOUT_S)
    try:
        container = av.open(source.given, "r", container_options=limits, metadata_errors="replace", timeout=timeout)
    except (av.InvalidDataError, av.ArgumentError):  # the latter for playlists and other disabled formats
        raise InputError(f"{source.name}: not a video that can be read from a server") from None
    except av.ExitError:
        raise InputError(f"{source.name}: the server sent nothing for {NETWORK_TIMEOUT_S:g} s") from None
    except av.FFmpegError as error:
        raise InputError(f"{source.name}: cannot be read: {error.strerror}") from None
    with container:
        stream = _describe_container(container, source, is_file=False)
    # Not every server supports seeking; read and discard the beginning instead.
    return replace(require_beginning(stream), is_seekable=False)


def require_beginning(stream: SourceStream) -> SourceStream:
    """Return ``stream``; InputError if it cannot be decoded from its first byte on, as streams require."""
    if not stream.is_decodable:
        hint = "an mp4 can be streamed only if its index comes first (+faststart)"
        raise InputError(f"{stream.info.path}: no frame can be decoded from its beginning; {hint}")
    return stream


def _describe_container(container: InputContainer, source: Source, *, is_file: bool) -> SourceStream:
    _refuse_picture(container, source.name)
    stream = _first_video_stream(container, source.name)
    check_size(source.name, stream.width, stream.height)
    packets = Packets(container, stream)
    frame = _decode_first_frame(packets, stream)
    # The times of a stream's frames would take its whole data.
    times = packets.look_up_times(read_first_time_s(stream, frame)) if is_file else NO_TIMES
    return _describe_stream(container, stream, frame, times, source)


def describe_content(head: bytes) -> str:
    """Guess from its first bytes what a file is that is not a video."""
    for signature, meaning in _SIGNATURES.items():
        if head.startswith(signature):
            return meaning
    if head[4:8] in _MP4_ATOMS:
        return "an mp4 or mov file without its index (moov atom), as when a recording or a copy was cut off"
    try:
        text = head[: max(1, len(head) - 3)].decode()
    except UnicodeDecodeError:
        return "in no format that can be read"
    return "text" if "\0" not in text else "in no format that can be read"


def _refuse_picture(container: InputContainer, name: str) -> None:
    kind = container.format.name.removesuffix("_pipe")
    if kind == container.format.name:
        kind = container.metadata.get("major_brand", "").strip()
        if kind not in _PICTURE_BRANDS or any(stream.frames > 1 for stream in container.streams.video):
            return
    raise InputError(f"{name}: not a video: it is a picture ({kind}); pictures are read as a folder of images")


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


def _codec_name(stream: Stream) -> str | None:
    # PyAV types the context as always present, but it is missing for codecs without a decoder.
    context: Any = stream.codec_context
    return None if context is None else str(context.codec.canonical_name)


def _describe_other(stream: Stream) -> str:
    if stream.type == "video" and stream.disposition & _NOT_VIDEO:
        return "a cover picture"
    return f"{stream.type} ({_codec_name(stream) or 'unknown codec'})"


def _decode_first_frame(packets: Packets, stream: VideoStream) -> VideoFrame | None:
    """Return the first decodable frame, or None if the beginning is too damaged."""
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    with suppress(av.FFmpegError):  # while reading
        for packet in itertools.islice(packets, _MAX_PACKETS_TO_FIRST_FRAME):
            with suppress(av.FFmpegError):  # while decoding
                for frame in packet.decode():
                    return frame if isinstance(frame, VideoFrame) else None
    return None


def _describe_stream(
    container: InputContainer, stream: VideoStream, frame: VideoFrame | None, times: FrameTimes, source: Source
) -> SourceStream:
    formats = set(container.format.name.split(","))
    rotation = frame.rotation % 360 if frame is not None else 0
    size_wh = (frame.width, frame.height) if frame is not None else (stream.width, stream.height)
    width, height = reversed(size_wh) if rotation % 180 == 90 else size_wh
    is_timed = not formats & RAW_FORMATS
    average = stream.average_rate if is_timed else stream.guessed_rate
    rates = choose_rates(times.times_s, average, (stream.guessed_rate, stream.base_rate))
    duration_s, is_length_known = read_duration(container, stream) if is_timed else (None, False)
    keeps_times = not container.format.flags & TIME_JUMPS_FLAG
    container_start_s = (container.start_time or 0) / av.time_base
    has_times = is_timed and not formats & GUESSED_TIMES_FORMATS
    first_s = max(container_start_s, read_first_time_s(stream, frame)) if has_times else container_start_s
    zero_s = first_s if keeps_times else first_s - read_start_s(stream, first_s)
    has_alpha, decoder = _find_alpha(stream, frame)
    audio = _heard_audio(container)
    info = VideoInfo(
        source=source,
        width=width,
        height=height,
        frame_rate=rates.rate,
        duration_s=duration_s,
        frames_declared=count_frames(stream, duration_s, rates, is_length_known=is_length_known),
        rotation=rotation,
        audio=None if audio is None else _codec_name(audio) or "unknown",
        pixel_aspect=_pixel_aspect(stream, rotation),
        warnings=tuple(_stream_warnings(stream, frame)),
    )
    return SourceStream(
        info=info,
        index=stream.index,
        decoder=decoder,
        has_alpha=has_alpha,
        is_untagged_hd=frame is not None
        and not frame.format.is_rgb
        and frame.colorspace == _UNTAGGED
        and frame.height >= _HD_LINES,
        is_decodable=frame is not None,
        is_timed=is_timed,
        rates=rates,
        times=times,
        is_seekable=bool(formats & _SEEKABLE_FORMATS),
        keeps_times=keeps_times,
        container_start_s=container_start_s,
        first_time_s=first_s - container_start_s,
        decoder_zero_s=zero_s if has_times else None,
        is_length_known=is_length_known and keeps_times,
        audio_index=None if audio is None else audio.index,
        audio_start_s=container_start_s if audio is None else read_start_s(audio, container_start_s),
    )


def _heard_audio(container: InputContainer) -> AudioStream | None:
    """The track that players choose: the default, else the first."""
    return max(container.streams.audio, key=lambda track: bool(track.disposition & Disposition.default), default=None)


def _pixel_aspect(stream: VideoStream, rotation: int) -> Fraction:
    """Width of a pixel over its height, in upright frames; 1 if it is missing or implausible."""
    ratio = stream.sample_aspect_ratio
    if not ratio or not Fraction(1, _MOST_STRETCHED) <= ratio <= _MOST_STRETCHED:
        return Fraction(1)
    return 1 / ratio if rotation % 180 == 90 else ratio


def _find_alpha(stream: VideoStream, frame: VideoFrame | None) -> tuple[bool, str | None]:
    """Whether frames have an alpha channel, and the decoder to request for it."""
    if stream.metadata.get("alpha_mode") == "1":  # VP8 and VP9 store alpha separately
        decoder = _ALPHA_DECODERS.get(_codec_name(stream) or "")
        return (True, decoder) if decoder is not None and has_decoder(decoder) else (False, None)
    pixel_format = frame.format if frame is not None else stream.codec_context.format
    return pixel_format is not None and any(part.is_alpha for part in pixel_format.components), None


def _stream_warnings(stream: VideoStream, frame: VideoFrame | None) -> list[str]:
    warnings = []
    transfer = _HDR_TRANSFERS.get(int(stream.codec_context.color_trc or 0))
    if transfer is not None:
        warnings.append(
            f"the video is HDR ({transfer}): it was reduced to 8 bits without tone mapping, so colours look flat"
        )
    if frame is not None and frame.interlaced_frame:
        warnings.append("the video is interlaced: its fields were not separated, so moving edges look combed")
    return warnings
