"""The C library's allocator, told to keep the memory that training steps free and soon take again."""

import ctypes
import os
import sys
from functools import cache

_LARGEST_KEPT_BYTES = 32 << 20
"""glibc takes no larger value."""
_MOST_KEPT_BYTES = 256 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""


@cache
def keep_freed_memory() -> None:
    """Keep up to 256 MB of freed memory, in arrays of up to 32 MB each, for the rest of the process.

    glibc gives memory back when twice as much as the largest freed array is free, and a step that needs it takes it
    page by page again: on one core of an AMD EPYC 5,000 page faults and 9 of 100 ms with the sliced generator on LeNet,
    900 and 1.8 of 20 ms with MAP. Settings in the environment are left as they are, and so are other C libraries.
    """
    settings = [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if settings or mallopt is None:
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    mallopt(_TRIM_THRESHOLD, _MOST_KEPT_BYTES)
