"""The moments of a video at which something is greatest, a little apart from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ROUNDING_S = 1e-6


def greatest_moments(times_s: Sequence[float], values: Sequence[float], *, count: int, apart_s: float) -> list[int]:
    """Positions of up to ``count`` of the greatest ``values``, in order of time and at least ``apart_s`` apart.

    The greatest comes first, then the greatest of those far enough from it, and so on. Values of 0 are never taken.
    """
    taken: list[int] = []
    for position in np.argsort(-np.asarray(values), kind="stable").tolist():
        if len(taken) == count or values[position] <= 0:
            break
        if all(abs(times_s[position] - times_s[other]) >= apart_s - _ROUNDING_S for other in taken):
            taken.append(position)
    return sorted(taken)
