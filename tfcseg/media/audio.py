"""Add the source's sound to a written video: copied if mp4 can hold it, else as AAC, else left out with a reason.

Sound is added when the video is complete, so damaged audio cannot spoil the video.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av

from tfcseg.errors import TfcsegError
from tfcseg.media.ffmpeg import FfmpegProcess, input_arguments
from tfcseg.media.frames import select_frames
from tfcseg.media.probing import SourceStream, probe_address, probe_file
from tfcseg.media.source import Source

_COPIED_CODECS = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
"""Codecs that most players support in mp4; ffmpeg would write more."""
_AAC = ("-c:a", "aac", "-b:a", "192k")
_COPY = ("-c:a", "copy", "-strict", "-2")
_UNHEARD_S = 0.01


class Sound(NamedTuple):
    """Source and range of a video's sound."""

    source: Source
    start_s: float | None
    end_s: float | None


def cut_audio(sound: Sound, target: Path) -> tuple[str, float | None]:
    """Write the default audio stream of a source to ``target``, from the first frame at ``start_s`` up to ``end_s``.

    An address is read again from its beginning. Returns ``copied`` or ``aac`` and the seconds by which the sound starts
    after the first frame; ``none`` or ``dropped: <reason>``, and None, if nothing is written.
    """
    source = sound.source
    if not source.is_readable_again:
        return "dropped: a stream can be read only once; save it to a file to keep its sound", None
    try:
        stream = probe_address(source) if source.kind == "address" else probe_file(source)
        rate = stream.info.frame_rate
        wanted = select_frames(rate, sound.start_s, sound.end_s, first_time_s=stream.first_time_s)
    except TfcsegError as error:
        return f"dropped: {error}", None
    if stream.audio_index is None:
        return "none", None
    video_s = stream.first_time_s + float(wanted.first / rate)
    duration_s = None if wanted.length is None else float(wanted.length / rate)
    method = "copied" if stream.info.audio in _COPIED_CODECS else "aac"
    reason = _extract(stream, target, video_s, duration_s, _COPY if method == "copied" else _AAC)
    if reason and method == "copied":
        method, reason = "aac", _extract(stream, target, video_s, duration_s, _AAC)
    if reason:
        return f"dropped: {stream.info.audio} audio can be neither copied nor converted ({reason})", None
    if not _has_sound(target):
        return "none", None
    return method, max(0.0, -_skipped_s(stream, video_s))


def _has_sound(track: Path) -> bool:
    """Whether there is sound in the range; it may end long before the video."""
    try:
        with track.open("rb") as file, av.open(file) as container:
            return len(container.streams.audio) > 0
    except av.FFmpegError:
        return False


def add_audio(video: Path, track: Path, delay_s: float, target: Path) -> str:
    """Join ``video`` and ``track``, which starts ``delay_s`` later, without re-encoding; returns why that failed."""
    delay = ["-itsoffset", f"{delay_s:.6f}"] if delay_s > _UNHEARD_S else []
    return _run(
        "-copyts",
        *input_arguments(video),
        *input_arguments(track, delay),
        *("-map", "0:v:0", "-map", "1:a:0", "-c", "copy", "-strict", "-2"),
        *("-movflags", "+faststart", "-f", "mp4", f"file:{target}"),
    )


def _extract(
    stream: SourceStream, target: Path, video_s: float, duration_s: float | None, codec: tuple[str, ...]
) -> str:
    skipped_s = _skipped_s(stream, video_s)
    cut = ["-ss", f"{skipped_s:.6f}"] if skipped_s > _UNHEARD_S else []
    exact = ["-copypriorss", "0"] if cut else []
    # Seeking is exact only with an index; otherwise the beginning is read and discarded.
    before, after = (cut, []) if stream.is_seekable else ([], cut)
    limit = [] if duration_s is None else ["-t", f"{duration_s:.6f}"]
    return _run(
        *input_arguments(stream.info.source, ["-vn", "-sn", "-dn", *before]),
        *after,
        *("-map", f"0:{stream.audio_index}", *codec, *exact, *limit, "-f", "mp4", f"file:{target}"),
    )


def _skipped_s(stream: SourceStream, video_s: float) -> float:
    """Seconds from ffmpeg's zero for audio to the first written frame; negative if audio starts later."""
    if stream.keeps_times:
        return video_s
    return stream.container_start_s + video_s - stream.audio_start_s


def _run(*arguments: str) -> str:
    """Returns an empty string, or why ffmpeg failed."""
    with FfmpegProcess(arguments) as process:
        status = process.wait()
        return "" if status == 0 else process.last_words() or f"ffmpeg ended with status {status}"
