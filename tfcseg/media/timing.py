"""Read frame rate, start and duration from a container, if they are plausible.

Times are seconds from the container's zero; times of frames are seconds from the first frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_NTSC = Fraction(1000, 1001)
_USUAL_RATES = tuple(map(Fraction, (24, 25, 30, 48, 50, 60, 100, 120, 240)))
_USUAL_RATES += tuple(rate * _NTSC for rate in _USUAL_RATES)
_DEFAULT_RATE = Fraction(25)
_MIN_RATE, MAX_RATE = Fraction(1, 100_000), Fraction(1000)
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
    known = [rate for rate in nominal if rate is not None and _MIN_RATE <= rate <= MAX_RATE]
    if average is None or not _MIN_RATE <= average <= min([MAX_RATE, *(2 * rate for rate in known)]):
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


def count_places(times_s: Sequence[float], rate: Fraction) -> int:
    """Number of frames at ``rate`` that show all frames of ``times_s``."""
    pace, places = Pace(rate), 0
    for time_s in times_s:
        places = max(places, (pace.place(time_s) or 0) + 1)
    return places


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
    """Duration, and whether it is this stream's own. Matroska has the container's duration, and a tag per stream.

    Both state the end time, so the start is subtracted: parts cut from the middle of a file keep their times.
    """
    if stream.duration is not None and stream.time_base is not None:
        own_s = _believable_s(float(stream.duration * stream.time_base))
        if own_s is not None:
            return own_s, True
    tagged_s = _tagged_end_s(stream)
    if tagged_s is not None and (own_s := _believable_s(tagged_s - max(0.0, read_start_s(stream, 0.0)))) is not None:
        return own_s, True
    if container.duration is None:
        return None, False
    start_s = max(0, container.start_time or 0) / av.time_base if "matroska" in container.format.name else 0.0
    whole_s = _believable_s(container.duration / av.time_base - start_s)
    return whole_s, whole_s is not None and len(container.streams) == 1


def _tagged_end_s(stream: VideoStream) -> float | None:
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return float(hours) * 3600 + float(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _believable_s(duration_s: float | None) -> float | None:
    """``duration_s``, or None if it is implausible, as in a damaged header."""
    return duration_s if duration_s is not None and 0 <= duration_s < _LONGEST_VIDEO_S else None


def count_declared(
    stream: VideoStream, duration_s: float | None, frame_rate: Fraction, *, is_length_known: bool
) -> int | None:
    """Number of frames by the container's count or duration; None if it states neither."""
    by_duration = None if duration_s is None else round(duration_s * frame_rate)
    if not stream.frames:
        return by_duration
    # An edit list can hide frames that are counted.
    return min(stream.frames, by_duration) if by_duration and is_length_known else stream.frames
