"""Frames to an H.264 mp4 that appears under its name only when it is complete.

Letters: H, W image height and width.
"""

from __future__ import annotations

import contextlib
import secrets
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from tfcseg.audio import add_audio, cut_audio
from tfcseg.errors import OutputError
from tfcseg.ffmpeg import FfmpegProcess
from tfcseg.frames import Image

_COLOURS = (
    "scale=flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:out_color_matrix=bt709:out_range=tv"
    ",format=yuv420p,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)
_TAGS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")
_ENCODER = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p")


class VideoWriter:
    """Writes (H, W, 3) RGB frames to ``path``, a .mp4; ``close`` completes it, ``abort`` leaves nothing.

    As a context manager it closes at the end of the block, and aborts when the block is left by an exception.
    ``audio_from`` names the source whose sound is added, cut to ``start_s`` … ``end_s`` of it. An odd height or width
    is padded to the next even number by repeating the last row or column. OutputError on any failure to write.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: tuple[int, int],
        frame_rate: Fraction,
        audio_from: str | Path | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> None:
        self.path = Path(path)
        self.size = size
        self.frames_written = 0
        self.audio = "none"
        """After ``close``: ``copied``, ``aac``, ``none`` or ``dropped: <reason>``."""
        self._audio_from = None if audio_from is None else str(audio_from)
        self._start_s, self._end_s = start_s, end_s
        token = secrets.token_hex(4)
        self._video, self._track, self._joined = (
            self.path.with_name(f".tfcseg-{token}-{part}.mp4") for part in ("video", "audio", "both")
        )
        self._check_target()
        self._encoder: FfmpegProcess | None = FfmpegProcess(
            _encode_arguments(self._video, size, frame_rate), writes_input=True
        )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, image: Image) -> None:
        """Append one frame, (H, W, 3) uint8 RGB of the size given at the start."""
        if self._encoder is None:
            raise OutputError(f"{self.path}: the video is already closed")
        if image.shape != (*self.size, 3) or image.dtype != np.uint8:
            found = f"{image.dtype} {image.shape}"
            raise OutputError(f"{self.path}: a frame is {found}, the video takes uint8 {(*self.size, 3)}")
        try:
            self._encoder.write(np.ascontiguousarray(image).data.cast("B"))
        except BrokenPipeError:
            self._finish_encoder()
            raise OutputError(f"{self.path}: the encoder stopped taking frames") from None
        self.frames_written += 1

    def close(self) -> None:
        """Complete the file and give it its name; what was there before is replaced. May be called again."""
        if self._encoder is None:
            return
        try:
            self._finish_encoder()
            if not self.frames_written:
                raise OutputError(f"{self.path}: no frames were written, so there is no video")
            self._publish(self._with_audio())
        finally:
            self.abort()

    def abort(self) -> None:
        """Stop and remove what was written so far; nothing under ``path`` is touched. May be called again."""
        if self._encoder is not None:
            self._encoder.kill()
            self._encoder = None
        for part in (self._video, self._track, self._joined):
            with contextlib.suppress(OSError):
                part.unlink()

    def _check_target(self) -> None:
        """Fail before any work is done, not at the end of it."""
        if self.path.suffix.lower() != ".mp4":
            raise OutputError(f"{self.path}: videos are written as .mp4; choose a name that ends so")
        if self.path.is_dir():
            raise OutputError(f"{self.path}: is a folder, a video cannot be written in its place")
        try:
            self._video.open("xb").close()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}: {self.path.parent}") from None

    def _finish_encoder(self) -> None:
        """Wait until all frames are encoded; OutputError, and nothing left, if the encoder failed."""
        if self._encoder is None:
            return
        status = self._encoder.wait()
        if status:
            reason = self._encoder.last_words() or f"status {status}"
            self.abort()
            raise OutputError(f"{self.path}: the encoder failed after {self.frames_written} frames: {reason}")

    def _with_audio(self) -> Path:
        """Return the finished file: the video, joined with the sound of the source if it has any."""
        if self._audio_from is None:
            return self._video
        track = cut_audio(self._audio_from, self._track, start_s=self._start_s, end_s=self._end_s)
        if isinstance(track, str):
            self.audio = track
            return self._video
        reason = add_audio(self._video, track, self._joined)
        if reason:
            self.audio = f"dropped: {reason}"
            return self._video
        self.audio = track.method
        return self._joined

    def _publish(self, finished: Path) -> None:
        try:
            finished.replace(self.path)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None


def _encode_arguments(target: Path, size: tuple[int, int], frame_rate: Fraction) -> list[str]:
    height, width = size
    filters = [_COLOURS]
    if height % 2 or width % 2:
        # The added row or column repeats its neighbour: black there would bleed into the picture's edge.
        edge = f"right={width % 2}:bottom={height % 2}:mode=smear"
        filters = ["format=gbrp", f"pad={width + width % 2}:{height + height % 2}", f"fillborders={edge}", _COLOURS]
    return [
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}", "-framerate", str(frame_rate)),
        *("-i", "pipe:0", "-vf", ",".join(filters), *_ENCODER, *_TAGS),
        *("-movflags", "+faststart", "-f", "mp4", f"file:{target}"),
    ]
