"""What the C library does with the memory that a batch frees."""

from __future__ import annotations

import ctypes
import os
from functools import cache

KEPT_BYTES = 512 << 20  # freed memory that the process holds on to, at most
LARGEST_BLOCK = 1 << 30  # blocks up to this size come from memory that is held on to
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep what a batch frees for the next one; once for the process, and only where it is glibc.

    By default it gives blocks of a few megabytes back to the system, which clears each page anew when the next batch
    touches it. On CPUs a batch of a small model spends a fifth of its time on that. What the user has set in the
    environment (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_` or `GLIBC_TUNABLES`) stays as it is.

    Returns:
        Whether it does now.
    """
    if any(name in os.environ for name in _USERS_OWN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be asked
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_BLOCK) and mallopt(_TRIM_THRESHOLD, KEPT_BYTES))
