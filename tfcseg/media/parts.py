"""Write a long video in parts, each a complete file, and join them at the end.

A stopped run loses only its unfinished part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.video.stream import VideoStream

from tfcseg.errors import OutputError
from tfcseg.media.frames import Image
from tfcseg.media.writer import Sound, VideoWriter, finish_video

PART_FRAMES = 240
"""About ten seconds. The encoder starts a new group of pictures every 250 frames anyway, so parts are hardly larger."""


def part_length(frames_at_once: int) -> int:
    """Frames of a part: a multiple of ``frames_at_once``, since the network restarts with each part, too."""
    return -(-PART_FRAMES // frames_at_once) * frames_at_once


class PartedVideo:
    """Writes (H, W, 3) RGB frames in parts, which ``finish`` joins to ``path``, a .mp4; OutputError on failure.

    ``part_at`` returns the file of the part that begins with a frame; the first ``frames_written`` frames are already
    in parts.
    """

    def __init__(
        self,
        path: Path,
        part_at: Callable[[int], Path],
        frame_rate: Fraction,
        sound: Sound | None,
        frames_written: int,
        *,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self.path = path
        self._part_at, self._frame_rate, self._sound = part_at, frame_rate, sound
        self._frames_written, self._pixel_aspect = frames_written, pixel_aspect
        self._part: VideoWriter | None = None

    def write(self, image: Image) -> None:
        """Append one frame, (H, W, 3) uint8 RGB of the same size as the others."""
        if self._part is None:
            size = (image.shape[0], image.shape[1])
            file = self._part_at(self._frames_written)
            self._part = VideoWriter(
                file, size=size, frame_rate=self._frame_rate, pixel_aspect=self._pixel_aspect, named=self.path
            )
        self._part.write(image)
        self._frames_written += 1

    def end_input(self) -> None:
        """Announce that the part has all of its frames; ``end_part`` follows."""
        if self._part is not None:
            self._part.end_input()

    def end_part(self) -> Callable[[], None]:
        """Start a new part with the next frame; returns a function that completes the current one, in any thread."""
        part, self._part = self._part, None

        def complete() -> None:
            if part is not None:
                part.close()

        return complete

    def finish(self, part_frames: int) -> str:
        """Join the parts of ``part_frames`` frames, add the sound and name the video; the parts are kept.

        Returns what happened to the sound: ``copied``, ``aac``, ``none`` or ``dropped: <reason>``.
        """
        parts = [self._part_at(first) for first in range(0, self._frames_written, part_frames)]
        if not parts:
            raise OutputError(f"{self.path}: no frames were written, so there is no video")
        joined = self._part_at(0).with_name(f"joined-{self.path.name}")
        try:
            join_parts(parts, joined, self._frame_rate)
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"{self.path}: its parts cannot be joined: {error.strerror or error}") from error
        return finish_video(joined, self.path, self._sound)

    def stop(self) -> None:
        """Make a ``write`` in another thread fail soon; ``abort`` follows."""
        if (part := self._part) is not None:
            part.stop()

    def abort(self) -> None:
        """Remove the unfinished part; complete ones are kept."""
        if self._part is not None:
            self._part.abort()
            self._part = None


def join_parts(parts: Sequence[Path], target: Path, frame_rate: Fraction) -> None:
    """Join the H.264 videos ``parts``, all encoded alike, into ``target`` without re-encoding.

    Raises OSError or av.FFmpegError on failure.
    """
    with av.open(f"file:{target}", "w", format="mp4", options={"movflags": "+faststart"}) as joined:
        stream: VideoStream | None = None
        lead = 0  # frames are decoded this much earlier than shown, as references for others
        count = 0
        for part in parts:
            first = count
            with part.open("rb") as file, av.open(file, "r") as container:
                source = container.streams.video[0]
                ticks = 1 / (frame_rate * _time_base(source))
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


def _time_base(stream: VideoStream) -> Fraction:
    if stream.time_base is None:
        raise OSError(0, "a part has no times")
    return stream.time_base
