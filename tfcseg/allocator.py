"""Keep memory that was freed: maps of a network come and go with every frame, always in the same sizes.

glibc gives large blocks back to the system at once, and the next frame's first touch of every page is a fault that the
kernel answers with zeroed memory.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of mallopt(3) from glibc's malloc.h."""

_NEVER = 2**31 - 1
_GROW_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Make this process reuse what it frees instead of returning it; its peak stays, it does not grow.

    Concerns the whole process, so programs call it, not modules. False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return all(
        mallopt(parameter, value)
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROW_BYTES))
    )
