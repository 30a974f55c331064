"""Allocator settings that keep the memory of one tile for the next.

A network's intermediates are tens of megabytes each. The C library's allocator gives such memory back to the
system when it is freed, and the system clears every page of it when it is asked for again: on one core that
takes a twentieth of a float32 pass over 700 px and a fourth of one over 1200 px. A process that keeps it peaks
a tenth higher, for the gaps between what it keeps. (mallopt(3); glibc alone has these settings.)

Imports no torch: the process that starts workers reads `ENVIRONMENT` and computes nothing.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_NEVER = 2**31 - 1  # mallopt takes a C int
_MAPPED_FROM = 2**30

ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(_MAPPED_FROM),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""For processes that predict, set before they start.

Threads that were running before `keep_memory` have an arena of their own, which these settings alone reach;
with the last one torch asks for huge pages.
"""


def keep_memory() -> bool:
    """Set this process's allocator to keep freed memory; False where it has no such setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # One arena: the others give their memory back whatever the thresholds say.
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _MAPPED_FROM), (_M_TRIM_THRESHOLD, _NEVER))
    taken = [mallopt(name, value) == 1 for name, value in settings]
    return all(taken)
