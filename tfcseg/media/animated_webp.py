"""Examine an animated WebP file, which PyAV cannot open: its chunks state the size and durations of its frames."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from typing import BinaryIO

from tfcseg.media.ffmpeg import has_decoder
from tfcseg.media.frames import VideoInfo, check_size
from tfcseg.media.probing import SourceStream
from tfcseg.media.source import Source
from tfcseg.media.timing import FrameTimes, choose_rates

_ANIMATED, _HAS_ALPHA = 0x02, 0x10
"""Flags in the first chunk (VP8X)."""
_UNSTATED_MS = 100
"""Duration of a frame that states none, as in ffmpeg and browsers."""


def probe_animated_webp(source: Source) -> SourceStream | None:
    """Describe an animated WebP file; None for any other file, or if this ffmpeg cannot decode it."""
    with source.path.open("rb") as file:
        head = file.read(30)
        is_animated = len(head) == 30 and head[:4] + head[8:16] == b"RIFFWEBPVP8X" and head[20] & _ANIMATED
        durations_ms = list(_durations_ms(file)) if is_animated else []
    if not durations_ms or not has_decoder("webp_anim"):
        return None
    width, height = (1 + int.from_bytes(head[start : start + 3], "little") for start in (24, 27))
    check_size(source.name, width, height)
    ends_ms = list(accumulate(durations_ms))
    times_s = (0.0, *(end / 1000 for end in ends_ms[:-1]))
    step_ms = math.gcd(*(durations_ms[:-1] or durations_ms))
    rates = choose_rates(times_s, Fraction(1000 * len(ends_ms), ends_ms[-1]), (Fraction(1000, step_ms),))
    return SourceStream(
        info=VideoInfo(
            source=source,
            width=width,
            height=height,
            frame_rate=rates.rate,
            duration_s=ends_ms[-1] / 1000,
            frames_declared=round(ends_ms[-1] * rates.rate / 1000),
            rotation=0,
            audio=None,
        ),
        index=0,
        decoder=None,
        has_alpha=bool(head[20] & _HAS_ALPHA),
        is_untagged_hd=False,
        is_decodable=True,
        is_timed=True,
        rates=rates,
        times=FrameTimes(times_s, durations_ms[-1] / 1000),
        is_seekable=False,
        keeps_times=True,
        container_start_s=0.0,
        first_time_s=0.0,
        decoder_zero_s=0.0,
        is_length_known=True,
        audio_index=None,
        audio_start_s=0.0,
    )


def _durations_ms(file: BinaryIO) -> Iterator[int]:
    """Duration of each frame: chunk ANMF."""
    file.seek(12)
    while len(head := file.read(24)) == 24:
        size = int.from_bytes(head[4:8], "little")
        if head[:4] == b"ANMF":
            yield int.from_bytes(head[20:23], "little") or _UNSTATED_MS
        file.seek(size + size % 2 - 16, os.SEEK_CUR)
