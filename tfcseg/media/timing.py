"""Read frame rate, start, duration and times of frames from a container, if they are plausible.

Times are seconds from the container's zero; times of frames are seconds from the first frame.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_NTSC = Fraction(1000, 1001)
_USUAL_RATES = tuple(map(Fraction, (24, 25, 30, 48, 50, 60, 100, 120, 240)))
_USUAL_RATES += tuple(rate * _NTSC for rate in _USUAL_RATES)
_DEFAULT_RATE = Fraction(25)
_MIN_RATE, _MAX_RATE = Fraction(1, 100_000), Fraction(1000)
_FINER_RATES = tuple(
    Fraction(rate)
    for rate in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 144, 200, 240)
)
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
        self._shift_s = 0.0
        self._last_s = -math.inf
        self._next: int | None = None
        self.jumps = 0
        """How often times restarted, or jumped too far to be plausible."""

    def place(self, time_s: float) -> int | None:
        """Place of the frame shown at ``time_s``, counted from frame 0; None if it must be dropped."""
        exact = (time_s + self._shift_s) * self._rate
        if self._next is None:
            self._next = max(0, round(exact))
        place = self._next if abs(exact - self._next) < _SAME_PLACE else round(exact)
        late_s = (self._next - exact) / self._rate
        if place < self._next:
            if time_s < self._last_s - _ROUNDING_S or late_s > _TIME_RESET_S:  # times restart
                self._shift_s += late_s
                self.jumps += 1
            elif late_s > max(_LATEST_S, 2 / self._rate):
                self._last_s = time_s
                return None
            place = self._next
        if self._longest_gap is not None and place - self._next > self._longest_gap:
            place = self._next
            self.jumps += 1
        self._next, self._last_s = place + 1, time_s
        return place


def constant_rate(average: Fraction | None, nominal: tuple[Fraction | None, ...]) -> Fraction:
    """Exact rate of a stream of evenly spaced frames.

    Averages come from rounded times (59.94 appears as 2997/50 or 59939/1000), so a close nominal or usual rate replaces
    them. An average far above the nominal rate counts empty packets, as in AVI, and is ignored.
    """
    known = [rate for rate in nominal if rate is not None and _MIN_RATE <= rate <= _MAX_RATE]
    if average is None or not _MIN_RATE <= average <= min([_MAX_RATE, *(2 * rate for rate in known)]):
        return known[0] if known else _DEFAULT_RATE
    close = [rate for rate in _USUAL_RATES if abs(rate - average) <= average / 2000]
    close += [rate for rate in known if abs(rate - average) <= average / 200]
    return close[0] if close else average.limit_denominator(min(_MIN_RATE.denominator, int(_LARGEST_TERM / average)))


def lossless_rate(times_s: Sequence[float], even: Fraction, nominal: tuple[Fraction | None, ...]) -> Fraction:
    """Rate at which each frame of ``times_s`` has its own place near its time.

    It is ``even``, the rate of evenly spaced frames, if possible; else a rate stated by the container, or the lowest
    usual rate. The rate is limited, so frames very close together may be late or dropped.
    """
    named = sorted({rate for rate in nominal if rate is not None and even < rate <= _FINER_RATES[-1]})
    finer = [rate for rate in _FINER_RATES if rate > even]
    for rate in (even, *named, *finer):
        if _has_place_for_all(times_s, rate, max(_ROUNDING_S, min(1 / float(rate), _SEEN_SHIFT_S))):
            return rate
    for rate in (*named, *finer):
        if _has_place_for_all(times_s, rate, _LATEST_S):
            return rate
    return max(even, _FINER_RATES[-1])


def _has_place_for_all(times_s: Sequence[float], rate: Fraction, most_shifted_s: float) -> bool:
    pace = Pace(rate)
    for time_s in times_s:
        place = pace.place(time_s)
        if place is None or abs(place / float(rate) - time_s) > most_shifted_s:
            return False
    return True


def read_start_s(stream: Stream, otherwise: float) -> float:
    """Start of the stream from its header; ``otherwise`` if it is not stated."""
    if stream.start_time is None or stream.time_base is None:
        return otherwise
    return float(stream.start_time * stream.time_base)


def read_first_time_s(stream: VideoStream, frame: VideoFrame | None) -> float:
    """Time of ``frame``, the first decodable one; the stream's start if there is none."""
    if frame is not None and frame.pts is not None and frame.time_base is not None:
        return float(frame.pts * frame.time_base)
    return read_start_s(stream, 0.0)


def read_duration(container: InputContainer, stream: VideoStream) -> tuple[float | None, bool]:
    """Duration, unless it is implausible as in a damaged header, and whether it is this stream's own."""
    if stream.duration is not None and stream.time_base is not None:
        own_s = float(stream.duration * stream.time_base)
        if 0 <= own_s < _LONGEST_VIDEO_S:
            return own_s, True
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


class FrameTimes(NamedTuple):
    """When each frame of a file is shown, in order; of a large file only the first ones."""

    times_s: tuple[float, ...] = ()
    last_duration_s: float = 0.0  # how long the last one is shown; 0 if unknown


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
    """The rate at which a stream is decoded."""

    rate: Fraction
    is_even: bool
    places: int | None = None
    """Number of frames at ``rate`` that show all examined frames; None if none were examined."""


def choose_rates(times_s: Sequence[float], average: Fraction | None, nominal: tuple[Fraction | None, ...]) -> Rates:
    """Choose a rate by the times of the first frames (there may be none), the ``average`` and the ``nominal`` rates."""
    rate = constant_rate(average, nominal)
    if not times_s or not times_s[-1]:
        return Rates(rate, rate in nominal)
    chosen = lossless_rate(times_s, rate, nominal)
    pace = Pace(chosen)
    places = 1 + max(pace.place(time_s) or 0 for time_s in times_s)
    # Truncated files lack frames that others refer to.
    return Rates(chosen, places == len(times_s) or chosen == rate in nominal, places)


def count_frames(stream: VideoStream, duration_s: float | None, rates: Rates, *, is_length_known: bool) -> int | None:
    """Number of output frames, by the container's count or duration; None if it states neither."""
    by_duration = None if duration_s is None else round(duration_s * rates.rate)
    if not rates.is_even:
        return rates.places if by_duration is None else by_duration
    if not stream.frames:
        return by_duration
    # An edit list can hide frames that are counted.
    return min(stream.frames, by_duration) if by_duration and is_length_known else stream.frames
