"""Keep freed memory in one heap of large pages, since a network's maps come and go with every frame.

glibc gives large blocks back to the system at once, and the next frame's first touch of every page is a fault that the
kernel answers with zeroed memory. It also gives every thread a heap of its own, none of which can use what another one
has freed. And maps of megabytes in pages of 4 KiB keep the processor looking up addresses.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""Parameters of mallopt(3) from glibc's malloc.h."""

_NEVER = 2**31 - 1
_GROW_BYTES = 64 << 20
_MADV_HUGEPAGE = 14
_LARGE_PAGE_BYTES = 2 << 20
_LARGE_PAGES_BYTES = 1 << 30
"""How much of the heap asks for large pages. Memory that nobody writes to takes none."""


def keep_freed_memory() -> bool:
    """Make this process reuse what it frees instead of returning it; its peak stays, it does not grow.

    Concerns the whole process, so programs call it, not modules, and before anything large is allocated. False where
    the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    mallopt = getattr(library, "mallopt", None)
    if mallopt is None:  # musl
        return False
    kept = all(
        mallopt(parameter, value)
        for parameter, value in (
            (_MMAP_MAX, 0),
            (_TRIM_THRESHOLD, _NEVER),
            (_TOP_PAD, _GROW_BYTES),
            # Threads that allocate maps wait for each other for no time that could be measured.
            (_ARENA_MAX, 1),
        )
    )
    _ask_for_large_pages(library)
    return kept


def _ask_for_large_pages(library: ctypes.CDLL) -> None:
    """Let the heap grow once, mark that part and free it: being kept, it serves everything from then on.

    Where the system has no such pages, or not the memory, all stays as it is.
    """
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = library.malloc(_LARGE_PAGES_BYTES)
    if start is None:
        return
    aligned = -(-start // _LARGE_PAGE_BYTES) * _LARGE_PAGE_BYTES
    library.madvise(aligned, start + _LARGE_PAGES_BYTES - aligned, _MADV_HUGEPAGE)
    library.free(start)
