"""What a container says of times: its rate, where it starts and how long it lasts, as far as that can be true.

Times are seconds, counted from the container's own zero.
"""

from __future__ import annotations

from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_USUAL_RATES = tuple(Fraction(n) for n in (24, 25, 30, 50, 60)) + tuple(Fraction(n * 1000, 1001) for n in (24, 30, 60))
_DEFAULT_RATE = Fraction(25)
_MIN_RATE, _MAX_RATE = Fraction(1, 100_000), Fraction(1000)
_LONGEST_VIDEO_S = 1e8  # three years


def constant_rate(average: Fraction | None, nominal: tuple[Fraction | None, ...]) -> Fraction:
    """Choose the rate at which a stream is decoded: its average rate, as the exact number that it stands for.

    An average is measured over rounded times (59.94 comes as 2997/50 or 59939/1000), so a nominal or usual rate that
    is close enough replaces it. An average far above the nominal rate counts empty packets, as AVI has them.
    """
    known = [rate for rate in nominal if rate is not None and _MIN_RATE <= rate <= _MAX_RATE]
    if average is None or not _MIN_RATE <= average <= min([_MAX_RATE, *(2 * rate for rate in known)]):
        return known[0] if known else _DEFAULT_RATE
    close = [rate for rate in _USUAL_RATES if abs(rate - average) <= average / 2000]
    close += [rate for rate in known if abs(rate - average) <= average / 200]
    return close[0] if close else average.limit_denominator(_MIN_RATE.denominator)


def read_start_s(stream: Stream, otherwise: float) -> float:
    """When the stream begins by its header; ``otherwise`` if that says nothing."""
    if stream.start_time is None or stream.time_base is None:
        return otherwise
    return float(stream.start_time * stream.time_base)


def read_first_time_s(stream: VideoStream, frame: VideoFrame | None) -> float:
    """When ``frame``, the first one that decodes, is shown; when the stream begins if there is none."""
    if frame is not None and frame.pts is not None and frame.time_base is not None:
        return float(frame.pts * frame.time_base)
    return read_start_s(stream, 0.0)


def read_duration(container: InputContainer, stream: VideoStream) -> tuple[float | None, bool]:
    """Seconds, and whether they are this stream's own; Matroska tells the container's, and a tag for each stream."""
    own_s = _believable_s(_own_duration_s(stream))
    if own_s is not None:
        return own_s, True
    whole_s = None if container.duration is None else _believable_s(container.duration / av.time_base)
    return whole_s, whole_s is not None and len(container.streams) == 1


def _own_duration_s(stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return float(hours) * 3600 + float(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _believable_s(duration_s: float | None) -> float | None:
    """``duration_s`` unless it is negative, infinite or no number, as a damaged header may say."""
    return duration_s if duration_s is not None and 0 <= duration_s < _LONGEST_VIDEO_S else None


def count_declared(
    stream: VideoStream, duration_s: float | None, frame_rate: Fraction, *, is_length_known: bool
) -> int | None:
    """Frames that the container promises, by its own count or by its duration; None if it promises nothing."""
    by_duration = None if duration_s is None else round(duration_s * frame_rate)
    if not stream.frames:
        return by_duration
    # An edit list can hide frames that the count still has.
    return min(stream.frames, by_duration) if by_duration and is_length_known else stream.frames
