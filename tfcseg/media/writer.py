"""Write frames to a video, which gets its name when it is complete. Shapes: H W frame.

A long video is written in parts, each a complete file, that are joined at the end: a stopped run loses only its
unfinished part. The source's sound is added to the complete video, so that damaged audio cannot spoil it: copied if mp4
can hold it, else as AAC, else left out with a reason.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tfcseg.errors import OutputError, TfcsegError
from tfcseg.files import output_errors, sync
from tfcseg.media.ffmpeg import FfmpegProcess, input_arguments
from tfcseg.media.frames import select_frames
from tfcseg.media.probing import SourceStream, open_container, probe_video
from tfcseg.media.source import Source

COMMENT = "made by tfcseg"
"""Comment in the metadata of our videos; others write files of the same names, too."""

_BT709 = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")
_REPRODUCIBLE = ("-fflags", "+bitexact", "-flags:v", "+bitexact")


@dataclass(frozen=True, slots=True)
class Coding:
    """An encoder and its format."""

    pixels: str  # ffmpeg's name of the frames' pixel format
    arguments: Sequence[str]
    filters: Sequence[str] = ()
    needs_even_size: bool = False  # whether an odd height or width is padded


H264 = Coding(
    "rgb24",
    ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", *_BT709, "-movflags", "+faststart"),
    (
        "scale=flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:out_color_matrix=bt709:out_range=tv",
        "format=yuv420p",
        "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv",
    ),
    needs_even_size=True,
)
"""H.264 in mp4, which all players read."""

WITH_ALPHA = Coding(
    "rgba",
    (
        *("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-crf", "24", "-b:v", "0"),
        *("-deadline", "realtime", "-cpu-used", "6", "-row-mt", "1", *_BT709, *_REPRODUCIBLE),
    ),
    ("scale=out_color_matrix=bt709:out_range=tv", "format=yuva420p"),
)
"""VP9 in WebM, for browsers and compositing programs; colours are not premultiplied."""

LOSSLESS_GRAY = Coding("gray", ("-c:v", "ffv1", "-color_range", "pc", *_REPRODUCIBLE))
"""Lossless FFV1 with 8 bits."""

logger = logging.getLogger(__name__)


class VideoWriter:
    """Writes frames (H, W[, C]) uint8 to ``path``; ``close`` completes the file, ``abort`` leaves nothing.

    As a context manager it closes, or aborts if the block raises. Raises OutputError on failure, with the name
    ``named`` if ``path`` is not where the video will be.
    """

    def __init__(
        self,
        path: str | Path,
        coding: Coding = H264,
        *,
        size: tuple[int, int],
        frame_rate: Fraction,
        pixel_aspect: Fraction = Fraction(1),
        named: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self._named = named or self.path
        self._frames = 0
        self._video = _scratch(self.path, "video")
        with output_errors(f"{self._named}: cannot be written", f": {self.path.parent}"):
            self._video.open("xb").close()
        height, width = size
        # Times are frame numbers, since ffmpeg would replace an unusual rate by a usual one nearby.
        filters = [f"settb={1 / frame_rate}", "setpts=N"]
        if coding.needs_even_size and (height % 2 or width % 2):
            # Repeat the last row or column; black would bleed into the picture.
            edge = f"right={width % 2}:bottom={height % 2}:mode=smear"
            filters += ["format=gbrp", f"pad={width + width % 2}:{height + height % 2}", f"fillborders={edge}"]
        filters += [*coding.filters, f"setsar=sar={pixel_aspect}:max=65535"]
        self._process: FfmpegProcess | None = FfmpegProcess(
            [
                *("-f", "rawvideo", "-pix_fmt", coding.pixels, "-video_size", f"{width}x{height}"),
                *("-framerate", str(frame_rate), "-i", "pipe:0", "-vf", ",".join(filters), "-r", str(frame_rate)),
                *(*coding.arguments, "-metadata", f"comment={COMMENT}", f"file:{self._video}"),
            ],
            writes_input=True,
        )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame of the size given at the start."""
        if self._process is None:
            raise OutputError(f"{self._named}: the video is already closed")
        try:
            self._process.write(np.ascontiguousarray(frame).data.cast("B"))
        except BrokenPipeError:
            try:
                self._finish(self._process)
                raise OutputError(f"{self._named}: the encoder stopped taking frames") from None
            finally:
                self.abort()
        self._frames += 1

    def close(self) -> None:
        """Complete the file and rename it to ``path``, replacing an existing file. May be called again."""
        if self._process is None:
            return
        try:
            self._finish(self._process)
            if not self._frames:
                raise OutputError(f"{self._named}: no frames were written, so there is no video")
            _rename(self._video, self.path, self._named)
        finally:
            self.abort()

    def stop(self) -> None:
        """Make a ``write`` that waits for the encoder in another thread fail; call ``abort`` afterwards."""
        if (process := self._process) is not None:
            process.stop()

    def abort(self) -> None:
        """Stop and remove the unfinished file; an existing file at ``path`` is kept. May be called again."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        with contextlib.suppress(OSError):
            self._video.unlink()

    def _finish(self, process: FfmpegProcess) -> None:
        status = process.wait()
        if status:
            reason = process.last_words() or f"status {status}"
            raise OutputError(f"{self._named}: the encoder failed after {self._frames} frames: {reason}")


def _rename(video: Path, target: Path, named: Path) -> None:
    with output_errors(f"{named}: cannot be written"):
        sync(video)
        video.replace(target)
        sync(target.parent)


def _scratch(path: Path, part: str) -> Path:
    return path.with_name(f".tfcseg-{secrets.token_hex(4)}-{part}{path.suffix}")


PART_FRAMES = 240
"""About ten seconds. The encoder starts a new group of pictures every 250 frames anyway, so parts are hardly larger."""


def part_length(frames_at_once: int) -> int:
    """Frames of a part: a multiple of ``frames_at_once``, since the network restarts with each part, too."""
    return -(-PART_FRAMES // frames_at_once) * frames_at_once


def finish_parts(parts: Sequence[Path], target: Path, frame_rate: Fraction, sound: Sound | None) -> str:
    """Join ``parts`` to ``target``, a .mp4, replacing an existing file, and add the ``sound``; OutputError on failure.

    Returns what happened to the sound: ``copied``, ``aac``, ``none`` or ``dropped: <reason>``.
    """
    joined, track, both = (_scratch(parts[0], name) for name in ("joined", "audio", "both"))
    try:
        join_parts(parts, joined, frame_rate)
        method = "none" if sound is None else _add_sound(joined, sound, track, both)
        _rename(both if method in ("copied", "aac") else joined, target, target)
    except (OSError, av.FFmpegError) as error:
        raise OutputError(f"{target}: its parts cannot be joined: {error.strerror or error}") from error
    finally:
        for made in (joined, track, both):
            with contextlib.suppress(OSError):  # one of them was renamed
                made.unlink()
    logger.info("%s: H.264; sound: %s", target, method, extra={"video": target, "audio": method})
    return method


def join_parts(parts: Sequence[Path], target: Path, frame_rate: Fraction) -> None:
    """Join the H.264 videos ``parts``, all encoded alike, into ``target``; OSError or av.FFmpegError on failure."""
    with av.open(f"file:{target}", "w", format="mp4", options={"movflags": "+faststart"}) as joined:
        joined.metadata["comment"] = COMMENT
        stream: VideoStream | None = None
        lead = 0  # frames are decoded this much earlier than shown, as references for others
        count = 0
        for part in parts:
            first = count
            with part.open("rb") as file, av.open(file, "r") as container:
                source = container.streams.video[0]
                ticks = 1 / (frame_rate * (source.time_base or Fraction(1)))
                for packet in container.demux(source):
                    if packet.pts is None or packet.dts is None:  # the mark of the end
                        continue
                    if stream is None:
                        stream, lead = joined.add_stream_from_template(source), -packet.dts
                    packet.pts += round(first * ticks)
                    # Not the part's own time, which is later in parts with few frames.
                    packet.dts = round(count * ticks) - lead
                    packet.stream = stream
                    joined.mux(packet)
                    count += 1


def is_our_video(path: Path) -> bool:
    """Whether tfcseg wrote a .mp4, .webm or .mkv."""
    kind = "mp4" if path.suffix == ".mp4" else "matroska"
    with contextlib.suppress(OSError, av.FFmpegError), path.open("rb") as file, open_container(file, kind) as video:
        return COMMENT in video.metadata.values()
    return False


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


def _add_sound(video: Path, sound: Sound, track: Path, target: Path) -> str:
    """Write ``video`` with the source's default audio stream, cut to ``track``, to ``target`` without re-encoding it.

    Returns what happened to the sound; ``target`` is complete after ``copied`` and ``aac``. An address is read again
    from its beginning.
    """
    source = sound.source
    if not source.is_readable_again:
        return "dropped: a stream can be read only once; save it to a file to keep its sound"
    try:
        stream = probe_video(source)
        rate = stream.info.frame_rate
        wanted = select_frames(rate, sound.start_s, sound.end_s, first_time_s=stream.first_time_s)
    except TfcsegError as error:
        return f"dropped: {error}"
    if stream.audio_index is None:
        return "none"
    skipped_s = stream.first_time_s + float(wanted.start / rate) + stream.audio_lead_s
    duration_s = None if wanted.stop is None else float((wanted.stop - wanted.start) / rate)
    for method, codec in (("copied", _COPY), ("aac", _AAC), ("aac", (*_AAC, "-ac", "2"))):  # AAC has up to 8 channels
        if method == "aac" or stream.info.audio in _COPIED_CODECS:
            reason = _extract(stream, track, skipped_s, duration_s, codec)
            if not reason:
                break
    else:
        return f"dropped: {stream.info.audio} audio can be neither copied nor converted ({reason})"
    if not _has_sound(track):
        return "none"
    delay = ["-itsoffset", f"{-skipped_s:.6f}"] if -skipped_s > _UNHEARD_S else []
    reason = _run(
        "-copyts",
        *input_arguments(video),
        *input_arguments(track, delay),
        *("-map", "0:v:0", "-map", "1:a:0", "-c", "copy", "-strict", "-2"),
        *("-movflags", "+faststart", "-f", "mp4", f"file:{target}"),
    )
    return f"dropped: {reason}" if reason else method


def _has_sound(track: Path) -> bool:
    """Whether there is sound in the range; it may end long before the video."""
    try:
        with track.open("rb") as file, open_container(file) as container:
            return len(container.streams.audio) > 0
    except av.FFmpegError:
        return False


def _extract(
    stream: SourceStream, target: Path, skipped_s: float, duration_s: float | None, codec: Sequence[str]
) -> str:
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


def _run(*arguments: str) -> str:
    """Returns an empty string, or why ffmpeg failed."""
    with FfmpegProcess(arguments) as process:
        status = process.wait()
        return "" if status == 0 else process.last_words() or f"ffmpeg ended with status {status}"
