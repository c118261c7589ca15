"""Write frames to an H.264 mp4, which gets its name when it is complete. Shapes: H W frame."""

from __future__ import annotations

import contextlib
import logging
import secrets
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from tfcseg.errors import OutputError
from tfcseg.files import sync
from tfcseg.media.audio import add_audio, cut_audio
from tfcseg.media.frame_encoder import H264, FrameEncoder
from tfcseg.media.frames import Image
from tfcseg.media.source import Given, Source

logger = logging.getLogger(__name__)


class Sound(NamedTuple):
    """Source and range of a video's sound."""

    source: Source
    start_s: float | None
    end_s: float | None


class VideoWriter:
    """Writes (H, W, 3) RGB frames to ``path``, a .mp4; ``close`` completes it, ``abort`` leaves nothing.

    As a context manager it closes at the end of the block, and aborts if the block raises. ``audio_from`` is the source
    of the sound, cut to ``start_s`` … ``end_s``. An odd height or width is padded to an even one by repeating the last
    row or column. Players show pixels ``pixel_aspect`` times as wide as high. Raises OutputError on failure, with the
    name ``named`` if ``path`` is only a part of a video. Complete files are flushed to disk.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: tuple[int, int],
        frame_rate: Fraction,
        pixel_aspect: Fraction = Fraction(1),
        audio_from: Given | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
        named: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self._named = named or self.path
        self.size = size
        self.audio = "none"
        """After ``close``: ``copied``, ``aac``, ``none`` or ``dropped: <reason>``."""
        self._sound = None if audio_from is None else Sound(Source.of(audio_from), start_s, end_s)
        self._video = _scratch(self.path, "video")
        self._check_target()
        self._encoder: FrameEncoder | None = FrameEncoder(
            self._video, H264, size=size, frame_rate=frame_rate, pixel_aspect=pixel_aspect, named=self._named
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
            raise OutputError(f"{self._named}: the video is already closed")
        if image.shape != (*self.size, 3) or image.dtype != np.uint8:
            found = f"{image.dtype} {image.shape}"
            raise OutputError(f"{self._named}: a frame is {found}; the video needs uint8 {(*self.size, 3)}")
        try:
            self._encoder.write(image)
        except OutputError:
            self.abort()
            raise

    def end_input(self) -> None:
        """Announce that no more frames follow, so that the encoder can finish in parallel. Optional."""
        if self._encoder is not None:
            self._encoder.end_input()

    def close(self) -> None:
        """Complete the file and rename it to ``path``, replacing an existing file. May be called again."""
        if self._encoder is None:
            return
        try:
            self._encoder.finish()
            if not self._encoder.frames_written:
                raise OutputError(f"{self._named}: no frames were written, so there is no video")
            self.audio = _finish(self._video, self.path, self._sound, self._named)
        finally:
            self.abort()

    def stop(self) -> None:
        """Make a ``write`` that waits for the encoder in another thread fail; call ``abort`` afterwards."""
        if (encoder := self._encoder) is not None:
            encoder.stop()

    def abort(self) -> None:
        """Stop and remove the unfinished file; an existing file at ``path`` is kept. May be called again."""
        if self._encoder is not None:
            self._encoder.kill()
            self._encoder = None
        with contextlib.suppress(OSError):
            self._video.unlink()

    def _check_target(self) -> None:
        """Fail early if the video cannot be written."""
        if self.path.suffix.lower() != ".mp4":
            raise OutputError(f"{self._named}: videos are written as .mp4; choose a name that ends in .mp4")
        if self.path.is_dir():
            raise OutputError(f"{self._named}: is a folder; choose another name for the video")
        try:
            self._video.open("xb").close()
        except OSError as error:
            raise OutputError(f"{self._named}: cannot be written: {error.strerror}: {self.path.parent}") from None


def finish_video(video: Path, target: Path, sound: Sound | None) -> str:
    """Add ``sound`` to the complete ``video`` and rename it to ``target``, replacing an existing file.

    Returns what happened to the sound: ``copied``, ``aac``, ``none`` or ``dropped: <reason>``. Raises OutputError on
    failure; ``video`` is removed in any case.
    """
    try:
        return _finish(video, target, sound, target)
    finally:
        with contextlib.suppress(OSError):  # it was renamed
            video.unlink()


def _finish(video: Path, target: Path, sound: Sound | None, named: Path) -> str:
    track, joined = _scratch(video, "audio"), _scratch(video, "both")
    try:
        finished, method = (video, "none") if sound is None else _with_sound(video, sound, track, joined)
        sync(finished)
        finished.replace(target)
        sync(target.parent)
    except OSError as error:
        raise OutputError(f"{named}: cannot be written: {error.strerror}") from None
    else:
        if target == named:  # not for parts, which have no sound
            logger.info("%s: H.264; sound: %s", named, method, extra={"video": named, "audio": method})
        return method
    finally:
        for part in (track, joined):
            with contextlib.suppress(OSError):
                part.unlink()


def _with_sound(video: Path, sound: Sound, track: Path, joined: Path) -> tuple[Path, str]:
    """Add the source's sound, if any: returns ``joined``, or else ``video``, and what happened to the sound."""
    cut = cut_audio(sound.source, track, start_s=sound.start_s, end_s=sound.end_s)
    if isinstance(cut, str):
        return video, cut
    reason = add_audio(video, cut, joined)
    return (video, f"dropped: {reason}") if reason else (joined, cut.method)


def _scratch(path: Path, part: str) -> Path:
    return path.with_name(f".tfcseg-{secrets.token_hex(4)}-{part}.mp4")
