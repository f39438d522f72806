"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h of the GNU C library


@cache
def keep_freed_memory() -> None:
    """Let the allocator reuse freed memory, where by default it returns large arrays to the kernel.

    For processes that repeat the same work, as training and data tasks do: memory from the kernel costs a
    page fault per page at every step. The process keeps its peak memory. Without effect
    where the C library is not GNU's.

    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_ARENA_MAX, 1)  # the arenas of other threads ignore the two thresholds
