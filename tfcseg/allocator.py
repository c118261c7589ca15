"""Keep freed memory in one heap of large pages: networks allocate and free large maps on every frame.

glibc by default returns large blocks to the system at once, so the next frame pays a page fault for every page. It also
gives each thread its own heap, whose free memory other threads cannot use. And with 4 KiB pages the processor spends
much time on address translation.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""Parameters of mallopt(3), from glibc's malloc.h."""

_NEVER = 2**31 - 1
_GROW_BYTES = 64 << 20
_MADV_HUGEPAGE = 14
_LARGE_PAGE_BYTES = 2 << 20
_LARGE_PAGES_BYTES = 1 << 30
"""How much of the heap asks for large pages. Untouched memory takes none."""


def keep_freed_memory() -> bool:
    """Make this process keep freed memory for reuse. Its peak does not grow; memory is not returned before it ends.

    This affects the whole process, so only programs should call it, before they allocate anything large. Returns False
    if the C library is not glibc.
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
            # One heap for all threads: waiting for each other costs too little to measure.
            (_ARENA_MAX, 1),
        )
    )
    _ask_for_large_pages(library)
    return kept


def _ask_for_large_pages(library: ctypes.CDLL) -> None:
    """Grow the heap once, mark it for large pages and free it; it is then kept and reused.

    Changes nothing if the system has no large pages or too little memory.
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
