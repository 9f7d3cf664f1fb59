"""The C library's allocator, told to keep the memory that training steps free and soon take again."""

import ctypes
import os
import sys
from functools import cache

_LARGEST_KEPT_BYTES = 32 << 20
"""Larger ones are rare, and would leave large holes."""
_MOST_KEPT_BYTES = 256 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""
_SETTINGS = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}


@cache
def keep_freed_memory() -> None:
    """Keep up to 256 MB free at the heap's top, of arrays of up to 32 MB each, for the rest of the process.

    glibc gives memory back when twice as much as the largest freed array is free, and a step that needs it takes it
    page by page again: on one core of an AMD EPYC 5,000 page faults and 9 of 100 ms with the sliced generator on LeNet,
    900 and 1.8 of 20 ms with MAP. Settings in the environment are left as they are, and so are other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or _SETTINGS & os.environ.keys():
        return
    if mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES):  # either setting alone ends glibc's own adjustment of both
        mallopt(_TRIM_THRESHOLD, _MOST_KEPT_BYTES)
