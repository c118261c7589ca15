"""Read when a file's frames are shown, from its packets, and choose a constant rate that loses none of them.

Times are seconds after frame 0.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from tfcseg.media.timing import MAX_RATE, constant_rate, count_declared, count_places, lossless_rate

GUESSED_TIMES_FORMATS = {"avi"}
"""Formats without times, whose frames are only numbered; libraries derive different times from that."""
TIME_JUMPS_FLAG = 0x0200  # AVFMT_TS_DISCONT
RAW_FORMATS = {"h261", "h263", "h264", "hevc", "m4v", "mjpeg", "mpegvideo", "obu", "vc1", "vvc", "av1"}
_MOST_TIMES, _MOST_BYTES = 100_000, 256 << 20
"""Times are read for at most this many frames and bytes of the file."""
_EARLIER_S = 0.0005
_ROUNDED = Fraction(1001, 1000)
_LONGEST_STEP_S = 10.0  # ffmpeg takes a longer one for a jump where times may restart


class FrameTimes(NamedTuple):
    """Times of a file's frames."""

    times_s: tuple[float, ...] = ()
    """When each frame is shown, in order; for a large file, the first frames."""
    last_duration_s: float = 0.0
    """How long the last one is shown; 0 if unknown."""


NO_TIMES = FrameTimes()


class Packets:
    """Iterates over packets of a stream and collects the times of their pictures."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container, self._stream = container, stream
        self._packets = container.demux(stream)
        # PyAV types the context as always present, but it is missing for codecs without a decoder.
        context: Any = stream.codec_context
        self._is_vp8 = context is not None and context.codec.canonical_name == "vp8"
        self._bytes = 0
        self._shown: list[tuple[Fraction, Fraction]] = []
        self._last_dts = -(2**63)
        self._is_timed = True
        """Whether every picture has a time, and times increase from the first to the last."""

    def __iter__(self) -> Packets:
        return self

    def __next__(self) -> Packet[VideoStream]:
        packet = next(self._packets)
        self._bytes += packet.size
        # A VP8 frame without this bit is never shown, but only a reference for others.
        is_hidden = self._is_vp8 and not bytes(memoryview(packet)[:1] or b"\x10")[0] & 0x10
        if packet.size and not packet.is_discard and not is_hidden:
            begins_anew = packet.dts is not None and packet.dts < self._last_dts
            self._last_dts = self._last_dts if packet.dts is None else packet.dts
            if packet.pts is None or begins_anew:
                self._is_timed = False
            else:
                self._shown.append((packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base))
        return packet

    def look_up_times(self, first_s: float) -> FrameTimes:
        """Read further packets, up to a limit; times count from ``first_s``, the time of the first decodable frame.

        Returns `NO_TIMES` if frames have no times, or if times restart.
        """
        formats = set(self._container.format.name.split(","))
        if formats & (RAW_FORMATS | GUESSED_TIMES_FORMATS):
            return NO_TIMES
        is_whole = False
        with contextlib.suppress(av.FFmpegError):
            for _ in self:
                if len(self._shown) >= _MOST_TIMES or self._bytes >= _MOST_BYTES:
                    break
            else:
                is_whole = True
        shown = sorted(entry for entry in self._shown if entry[0] > first_s - _EARLIER_S)
        may_jump = self._container.format.flags & TIME_JUMPS_FLAG
        steps = (after[0] - before[0] for before, after in itertools.pairwise(shown))
        if not self._is_timed or not shown or (may_jump and max(steps, default=0) > _LONGEST_STEP_S):
            return NO_TIMES
        times_s = tuple(float(time_s - shown[0][0]) for time_s, _ in shown)
        return FrameTimes(times_s, self._last_duration_s(times_s[-1], float(shown[-1][1])) if is_whole else 0.0)

    def _last_duration_s(self, last_s: float, own_s: float) -> float:
        """How long players show the frame at ``last_s``; some formats state durations from decoding time."""
        stream = self._stream
        if stream.frames == len(self._shown) and stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base) - last_s
        return 0.0 if stream.frames else own_s


class Rates(NamedTuple):
    """The rate at which a stream is decoded, and the stream's own."""

    rate: Fraction
    source_rate: Fraction
    """Frames per second in the source; more than ``rate`` if that is limited."""
    is_even: bool
    """Whether frames are evenly spaced, as far as known."""
    places: int | None = None
    """Number of frames at ``rate`` that show all examined frames; None if none were examined."""

    @property
    def is_bounded(self) -> bool:
        """Whether the source has more frames per second than can be written."""
        return self.source_rate > self.rate


def find_rates(stream: VideoStream, times_s: Sequence[float], *, is_timed: bool) -> Rates:
    """Choose the rate of a stream from the times of its first frames, ``times_s``, which may be empty."""
    average = stream.average_rate if is_timed else stream.guessed_rate
    nominal = (stream.guessed_rate, stream.base_rate)
    rate = constant_rate(average, nominal)
    if not times_s or not times_s[-1]:
        return Rates(rate, rate, rate in nominal)
    measured = Fraction(len(times_s) - 1) / Fraction(times_s[-1])
    if measured > MAX_RATE * _ROUNDED:
        return Rates(MAX_RATE, measured.limit_denominator(1000), is_even=True, places=len(times_s))
    chosen = lossless_rate(times_s, rate, nominal)
    places = count_places(times_s, chosen)
    # Truncated files lack frames that others refer to.
    return Rates(chosen, chosen, places == len(times_s) or chosen == rate in nominal, places)


def count_frames(stream: VideoStream, duration_s: float | None, rates: Rates, *, is_length_known: bool) -> int | None:
    """Number of output frames, if the container states it."""
    if rates.is_even:
        return count_declared(stream, duration_s, rates.source_rate, is_length_known=is_length_known)
    return rates.places if duration_s is None else round(duration_s * rates.rate)
