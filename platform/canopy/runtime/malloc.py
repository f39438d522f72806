"""What the C library does with memory that a process has given back."""

from __future__ import annotations

import ctypes
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h of the GNU C library


@cache
def keep_freed_memory() -> None:
    """Let this process use memory again that it has freed, in place of asking the kernel for new pages.

    By default the GNU C library takes large arrays from the kernel and gives them back one by one, so a
    training on a CPU touches the pages of its activations for the first time at every step. The price is
    that the process keeps the most that it ever held.
    For processes whose work is the same over and over: training, data tasks. Does nothing where the C
    library is another.

    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_ARENA_MAX, 1)  # the arenas of other threads take large arrays from the kernel all the same
